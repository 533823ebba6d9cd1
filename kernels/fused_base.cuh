// What the text of a cell is written in, and what stands in front of the text of a fused kernel.
#pragma once
#include "formulas.cuh"
#include "fast.cuh"
#include "layout.cuh"
#include "typed.cuh"
#include "tensor_core.cuh"
