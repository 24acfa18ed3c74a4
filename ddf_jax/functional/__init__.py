"""Functions without parameters: pooling, per-sample convolution, classical joint upsampling."""
