// What the generated text of a cell stands on: the functions of its formulas, and where kernels leave complaints.
#include "formulas.cuh"
#include "layout.cuh"
