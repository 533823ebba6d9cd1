// One element of an array of any floating-point type, for passes outside the time loops of the recurrence: T is the
// type of the arithmetic, and the codes PL_F16, PL_BF16, PL_F32 are those of host/device/dtype.h.
#pragma once

inline T load_typed(const char *data, int type, long long i) {
  if (type == PL_BF16) return widen(((const bf16 *)data)[i]);
  if (type == PL_F16) return widen(((const f16 *)data)[i]);
  if (type == PL_F32) return ((const float *)data)[i];
  return (T)((const double *)data)[i];
}

inline void store_typed(char *data, int type, long long i, T value) {
  if (type == PL_BF16) {
    ((bf16 *)data)[i] = store_as<bf16>(value);
  } else if (type == PL_F16) {
    ((f16 *)data)[i] = store_as<f16>(value);
  } else if (type == PL_F32) {
    ((float *)data)[i] = (float)value;
  } else {
    ((double *)data)[i] = value;
  }
}
