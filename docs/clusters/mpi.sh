#!/bin/bash
# Two machines of 8 GPUs, one process for each GPU: bash mpi.sh
# Open MPI numbers the processes. They meet at the first machine, where the port must be free.
exec mpirun --host gpu1:8,gpu2:8 --map-by ppr:8:node --bind-to none \
  -x JAX_COORDINATOR_ADDRESS=gpu1:29400 -x PATH \
  ddf train imagenet_ddf_resnet50 --data.data-dir /shared/tensorflow_datasets --workdir /shared/runs/ddf
