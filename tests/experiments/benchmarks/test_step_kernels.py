"""The kernels of a trace are those of the program: a sample of DDF-ResNet-50's step as an H200 ran it, twice."""

import pytest

from experiments.benchmarks.step_kernels import KernelEvent, category_sums, measured_kernels, span
from pallas_kernels import aot

H200 = aot.DEVICES["h200"]
PROGRAM = """
HloModule jit_step, is_scheduled=true

FunctionNames
1 "Bottleneck.__call__"
2 "dynamic_filter"
3 "PointwiseConv.__call__"
4 "Conv.__call__"

FileLocations
1 {file_name_id=1 function_name_id=1}
2 {file_name_id=1 function_name_id=2}
3 {file_name_id=1 function_name_id=3}
4 {file_name_id=1 function_name_id=4}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=2}
4 {file_location_id=4 parent_frame_id=2}

%fused_add (p: bf16[25690112], q: bf16[25690112]) -> bf16[25690112] {
  %p = bf16[25690112]{0} parameter(0)
  %q = bf16[25690112]{0} parameter(1)
  ROOT %sum = bf16[25690112]{0} add(%p, %q), metadata={op_name="jit(step)/add" stack_frame_id=1}
}

ENTRY %main (x: bf16[401408,64]) -> f32[7,7,3,64] {
  %x = bf16[401408,64]{1,0} parameter(0)
  %s = bf16[401408,9]{1,0} parameter(1)
  %c = bf16[1152,64]{1,0} parameter(2)
  %w = bf16[64,320]{1,0} parameter(3)
  %i = bf16[128,224,224,3]{3,2,1,0} parameter(4)
  %k = bf16[64,7,7,3]{3,2,1,0} parameter(5)
  %cudnn-conv.1 = (bf16[128,112,112,64]{3,2,1,0}, u8[102810640]{0}) custom-call(%i, %k), dim_labels=b01f_o01i->b01f, \
window={size=7x7 stride=2x2 pad=3_3x3_3}, custom_call_target="__cudnn$convForward", metadata={stack_frame_id=4}
  %custom-call.14 = (bf16[401408,320]{1,0}, s8[33554432]{0}) custom-call(%x, %w), \
custom_call_target="__cublas$lt$matmul", metadata={stack_frame_id=3}, backend_config={"gemm_backend_config":{\
"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %pallas_call.0 = bf16[401408,64]{1,0} custom-call(%x, %s, %c), custom_call_target="__gpu$xla.gpu.triton", \
metadata={stack_frame_id=2}, backend_config={debug = false, ir = "ML", name = "dynamic_filter_fwd", num_warps = 2 : i32}
  %loop_add_fusion.9 = bf16[25690112]{0} fusion(%x, %x), kind=kLoop, calls=%fused_add
  %pallas_call.3 = bf16[100352,128]{1,0} custom-call(%x, %s, %c), custom_call_target="__gpu$xla.gpu.triton", \
metadata={stack_frame_id=2}, backend_config={debug = false, ir = "ML", name = "dynamic_filter_fwd", num_warps = 2 : i32}
  %loop_add_fusion.10 = bf16[25690112]{0} fusion(%x, %x), kind=kLoop, calls=%fused_add
  ROOT %copy.1261 = f32[7,7,3,64]{3,2,1,0} copy(%k)
}
"""
PADDING = "void nhwcAddPaddingKernel<__nv_bfloat16, __nv_bfloat16, float, true>(int, int)"
CONVOLUTION = "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optimized_bf16_256x64_32x4_nhwc_align8>"
RECORDED = [
    (PADDING, 0, 84288, "cudnn-conv.1"),
    (CONVOLUTION, 90000, 770433, "cudnn-conv.1"),
    ("Memset 3", 1400450, 736, "command_buffer_75"),
    ("nvjet_sm90_tst_64x192_64x6_1x2_h_bz_NNN", 1406146, 83808, "command_buffer_75"),
    ("dynamic_filter_fwd", 1730146, 77152, "command_buffer_75"),
    ("loop_add_fusion_9", 1900000, 35000, "command_buffer_75"),
    ("dynamic_filter_fwd__1", 3850885, 62880, "command_buffer_75"),
    ("loop_add_fusion_9", 3950000, 36000, "command_buffer_75"),  # of loop_add_fusion.10, the same kernel
    ("MemcpyD2D", 4000000, 928, "copy.1261"),
]
EVENTS = [KernelEvent(name, start + step * 5_000_000, ns, op) for step in (0, 1) for name, start, ns, op in RECORDED]


def test_every_kernel_has_its_time_its_bound_and_its_category():
    kernels = {kernel.name: kernel for kernel in measured_kernels(EVENTS, PROGRAM, steps=2, device=H200)}
    launches = {launch.name: launch for launch in aot.launches(PROGRAM)}
    assert next(iter(kernels)) == CONVOLUTION  # the most time above its bound
    for name, instruction, category, times in (
        (CONVOLUTION, "cudnn-conv.1", "convolution", 1),
        ("nvjet_sm90_tst_64x192_64x6_1x2_h_bz_NNN", "custom-call.14", "convolution", 1),
        ("dynamic_filter_fwd", "pallas_call.0", "dynamic_filter", 1),
        ("dynamic_filter_fwd__1", "pallas_call.3", "dynamic_filter", 1),
        ("loop_add_fusion_9", "loop_add_fusion.9", "other", 2),
        ("MemcpyD2D", "copy.1261", "copies", 1),
    ):
        kernel, launch = kernels[name], launches[instruction]
        assert (kernel.category, kernel.launches) == (category, times), name
        assert kernel.us == 1e-3 * sum(event.duration_ns for event in EVENTS if event.name == name) / 2
        assert kernel.num_bytes == times * launch.num_bytes
        assert kernel.bound_us == pytest.approx(times * launch.roofline_us(H200), abs=1e-3)
    assert (kernels[PADDING].category, kernels[PADDING].bound_us) == ("convolution", None)  # counted with the above
    assert (kernels["Memset 3"].category, kernels["Memset 3"].num_bytes) == ("library", None)


def test_kernels_that_are_not_as_many_as_the_program_has_are_not_taken_for_others():
    lost = [event for event in EVENTS if event != EVENTS[4]]
    kernels = {kernel.name: kernel for kernel in measured_kernels(lost, PROGRAM, steps=2, device=H200)}
    assert kernels["dynamic_filter_fwd__1"].category == "library"


def test_sums_by_category_and_the_share_of_time_without_a_kernel():
    sums = category_sums(measured_kernels(EVENTS, PROGRAM, steps=2, device=H200))
    assert sums["dynamic_filter"]["launches"] == 2
    assert sums["dynamic_filter"]["ms"] == pytest.approx(0.0772 + 0.0629, abs=1e-4)
    assert sums["total"]["launches"] == len(RECORDED)
    bounds = [launch.roofline_us(H200) for launch in aot.launches(PROGRAM)]
    assert sums["total"]["bound_ms"] == pytest.approx(1e-3 * sum(bounds), abs=1e-4)
    assert "batch_norm" not in sums
    overlapping = [KernelEvent("a", 0, 4e6, ""), KernelEvent("b", 2e6, 4e6, ""), KernelEvent("c", 8e6, 2e6, "")]
    assert span(overlapping, steps=2) == {"span_ms": 5.0, "idle_share": 0.2}
