"""The kernels of a compiled program, counted in its text."""

import pytest

from pallas_kernels import aot

PROGRAM = """
HloModule jit_step, is_scheduled=true

FileNames
1 "net.py"

FunctionNames
1 "step"
2 "Layer.__call__"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=1 function_name_id=2 line=2 end_line=2 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}


%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%sliced (p: bf16[100,64], q: f32[64]) -> (f32[10,64], f32[10]) {
  %p = bf16[100,64]{1,0} parameter(0)
  %s = bf16[10,64]{1,0} slice(%p), slice={[0:10], [0:64]}
  %c = f32[10,64]{1,0} convert(%s), metadata={op_name="jit(step)/convert" stack_frame_id=2}
  %q = f32[64]{0} parameter(1)
  %w = f32[10,64]{1,0} broadcast(%q), dimensions={1}
  %m = f32[10,64]{1,0} multiply(%c, %w), metadata={op_name="jit(step)/mul" stack_frame_id=2}
  %zero = f32[] constant(0)
  %r = f32[10]{0} reduce(%m, %zero), dimensions={1}, to_apply=%add, metadata={op_name="jit(step)/sum" stack_frame_id=1}
  ROOT %t = (f32[10,64]{1,0}, f32[10]{0}) tuple(%m, %r)
}

%body (v: (s32[], f32[256])) -> (s32[], f32[256]) {
  %v = (s32[], f32[256]{0}) parameter(0)
  %i = s32[] get-tuple-element(%v), index=0
  %x = f32[256]{0} get-tuple-element(%v), index=1
  %copied = f32[256]{0} copy(%x)
  ROOT %out = (s32[], f32[256]{0}) tuple(%i, %copied)
}

%condition (v: (s32[], f32[256])) -> pred[] {
  %v = (s32[], f32[256]{0}) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (x: bf16[100,64], w: f32[64], k: bf16[64,32], l: (s32[], f32[256])) -> f32[10,64] {
  %x = bf16[100,64]{1,0} parameter(0)
  %w = f32[64]{0} parameter(1)
  %k = bf16[64,32]{1,0} parameter(2)
  %l = (s32[], f32[256]{0}) parameter(3)
  %fusion = (f32[10,64]{1,0}, /*index=1*/f32[10]{0}) fusion(%x, %w), kind=kInput, calls=%sliced
  %gemm = (bf16[100,32]{1,0}, s8[33554432]{0}) custom-call(%x, %k), custom_call_target="__cublas$lt$matmul", \
metadata={op_name="jit(step)/dot" stack_frame_id=2}, backend_config={"gemm_backend_config":{\
"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %loop = (s32[], f32[256]{0}) while(%l), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %y = f32[10,64]{1,0} get-tuple-element(%fusion), index=0
}
"""


def test_every_kernel_has_the_bytes_it_touches_its_arithmetic_and_its_python_functions():
    fusion, gemm, *loop = aot.launches(PROGRAM)
    layer, step = ("Layer.__call__", "step"), ("step",)
    # A tenth of the large operand, the small one once, both results.
    read, written = 10 * 64 * 2 + 64 * 4, (10 * 64 + 10) * 4
    assert fusion == aot.Launch("fusion", "fusion", read + written, 0, (layer, layer, step))
    product = 2 * (100 * 64 + 64 * 32 + 100 * 32)  # the workspace is not traffic
    assert gemm == aot.Launch("gemm", "__cublas$lt$matmul", product, 2 * 100 * 32 * 64, (layer,))
    assert loop == 3 * [aot.Launch("copied", "copy", 2 * 256 * 4, 0, ())]


def test_a_convolution_and_both_of_its_derivatives_have_the_same_arithmetic():
    shapes = {"x": "bf16[8,56,56,64]", "w": "bf16[128,3,3,64]", "y": "bf16[8,28,28,128]"}
    calls = {"Forward": ("x", "w", "y"), "BackwardInput": ("y", "w", "x"), "BackwardFilter": ("x", "y", "w")}
    for kind, (left, right, result) in calls.items():
        [launch] = aot.launches(f"""
ENTRY %main (a: {shapes[left]}, b: {shapes[right]}) -> {shapes[result]} {{
  %a = {shapes[left]} parameter(0)
  %b = {shapes[right]} parameter(1)
  ROOT %conv = ({shapes[result]}, u8[0]) custom-call(%a, %b), dim_labels=b01f_o01i->b01f, \
custom_call_target="__cudnn$conv{kind}"
}}
""")
        assert launch.flops == 2 * (8 * 28 * 28 * 128) * (3 * 3 * 64)


def test_the_lower_bound_of_the_time_is_the_largest_of_memory_arithmetic_and_launch():
    device = aot.DEVICES["h200"]
    bounds = [
        aot.Launch("", "", num_bytes, flops, ()).roofline_us(device)
        for num_bytes, flops in ((4_300_000_000, 0), (1, 600_000_000_000), (1, 1))
    ]
    assert bounds == pytest.approx([1000, 1000, 1.8])


def test_a_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        aot.launches("HloModule nothing")
