/* .safetensors and .npy. */
#include "host/tensor/files.h"

#include "host/base/file.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *safetensors, *npy;
} names[PL_DTYPES] = {
    [PL_BOOL] = {"BOOL", "|b1"}, [PL_U8] = {"U8", "|u1"},    [PL_I32] = {"I32", "<i4"}, [PL_I64] = {"I64", "<i8"},
    [PL_F16] = {"F16", "<f2"},   [PL_BF16] = {"BF16", NULL}, [PL_F32] = {"F32", "<f4"}, [PL_F64] = {"F64", "<f8"},
};

static size_t bytes_of(const pl_tensor *tensor) {
  return (size_t)pl_tensor_count(tensor) * pl_dtype_size(tensor->array.dtype);
}

pl_status pl_tensor_download(pl_tensor *tensor, void *host) {
  pl_tensor *packed;
  bool was = pl_set_recording(false);
  pl_status status = pl_contiguous(tensor, &packed);
  pl_set_recording(was);
  PL_TRY(status);
  pl_device *device = pl_tensor_device(packed);
  status = device->download(device, host, pl_array_data(&packed->array), bytes_of(packed));
  pl_tensor_release(packed);
  return status;
}

pl_status pl_tensor_upload(pl_device *device, pl_dtype dtype, int rank, const int64_t *size, const void *host,
                           pl_tensor **out) {
  PL_TRY(pl_tensor_new(device, dtype, rank, size, out));
  pl_status status = device->upload(device, pl_array_data(&(*out)->array), host, bytes_of(*out));
  if (status != PL_OK) pl_tensor_release(*out), *out = NULL;
  return status;
}

void pl_named_tensors_release(pl_named_tensor *list, int count) {
  for (int i = 0; i < count; i++) {
    free(list[i].name);
    pl_tensor_release(list[i].tensor);
  }
  free(list);
}

/* ---- safetensors: u64 header length, JSON header, data ---- */

/* The header as text; NULL when a name is not valid UTF-8. */
static char *safetensors_header(const pl_named_tensor *list, int count) {
  json_t *header = json_object();
  size_t at = 0;
  bool valid = true;
  for (int i = 0; i < count && valid; i++) {
    const pl_array *array = &list[i].tensor->array;
    json_t *shape = json_array();
    for (int k = 0; k < array->rank; k++) json_array_append_new(shape, json_integer(array->size[k]));
    size_t end = at + bytes_of(list[i].tensor);
    valid = json_object_set_new(header, list[i].name,
                                json_pack("{s:s, s:o, s:[I, I]}", "dtype", names[array->dtype].safetensors, "shape",
                                          shape, "data_offsets", (json_int_t)at, (json_int_t)end)) == 0;
    at = end;
  }
  char *text = valid ? json_dumps(header, JSON_COMPACT) : NULL;
  json_decref(header);
  return text;
}

pl_status pl_save_safetensors(const char *path, const pl_named_tensor *list, int count) {
  for (int i = 0; i < count; i++)
    PL_REQUIRE(strcmp(list[i].name, "__metadata__") != 0, "save '%s': a tensor cannot be called __metadata__", path);
  char *json = safetensors_header(list, count);
  PL_REQUIRE(json, "save '%s': a tensor's name is not valid UTF-8", path);
  pl_text header = {0};
  pl_text_append(&header, json, strlen(json));
  free(json);
  while (header.length % 8 != 0) pl_text_append(&header, " ", 1); /* so that the data are aligned */
  uint64_t length = header.length;
  pl_piece *piece = pl_allocate((size_t)(count + 2) * sizeof *piece);
  piece[0] = (pl_piece){&length, sizeof length};
  piece[1] = (pl_piece){header.data, header.length};
  pl_status status = PL_OK;
  void **data = pl_allocate((size_t)(count + 1) * sizeof *data);
  for (int i = 0; i < count && status == PL_OK; i++) {
    size_t bytes = bytes_of(list[i].tensor);
    data[i] = malloc(bytes ? bytes : 1);
    status =
        data[i] ? pl_tensor_download(list[i].tensor, data[i]) : PL_FAIL_MEMORY("save: no memory for %zu bytes", bytes);
    piece[i + 2] = (pl_piece){data[i], bytes};
  }
  if (status == PL_OK) status = pl_file_write(path, piece, count + 2);
  for (int i = 0; i < count; i++) free(data[i]);
  free(data);
  free(piece);
  pl_text_release(&header);
  return status;
}

static pl_status read_shape(const char *path, const char *name, const json_t *shape, int *rank,
                            int64_t size[PL_RANK_MAX], int64_t *count) {
  PL_REQUIRE(json_is_array(shape) && json_array_size(shape) <= PL_RANK_MAX,
             "load '%s': tensor '%s': expected a shape of at most %d sizes", path, name, PL_RANK_MAX);
  *rank = (int)json_array_size(shape);
  *count = 1;
  for (int i = 0; i < *rank; i++) {
    const json_t *entry = json_array_get(shape, (size_t)i);
    size[i] = json_integer_value(entry);
    PL_REQUIRE(json_is_integer(entry) && size[i] >= 0 && !__builtin_mul_overflow(*count, size[i], count) &&
                   *count < INT64_MAX / 16,
               "load '%s': tensor '%s' has an impossible shape", path, name);
  }
  return PL_OK;
}

static pl_status read_entry(const char *path, const char *name, const json_t *entry, const char *data, size_t available,
                            pl_device *device, pl_tensor **out) {
  const char *type_name = json_string_value(json_object_get(entry, "dtype"));
  const json_t *offsets = json_object_get(entry, "data_offsets");
  pl_dtype type = PL_DTYPES;
  for (int i = 0; i < PL_DTYPES && type_name; i++)
    if (strcmp(names[i].safetensors, type_name) == 0) type = (pl_dtype)i;
  PL_REQUIRE(type != PL_DTYPES, "load '%s': tensor '%s' has type '%s', which is not supported", path, name,
             type_name ? type_name : "none");
  int rank = 0;
  int64_t size[PL_RANK_MAX], count = 0;
  PL_TRY(read_shape(path, name, json_object_get(entry, "shape"), &rank, size, &count));
  json_int_t begin = json_integer_value(json_array_get(offsets, 0)),
             end = json_integer_value(json_array_get(offsets, 1));
  PL_REQUIRE(begin >= 0 && end >= begin && (size_t)end <= available,
             "load '%s': tensor '%s' lies at bytes %lld..%lld, but the file has %zu bytes of data: it is cut short",
             path, name, (long long)begin, (long long)end, available);
  PL_REQUIRE((size_t)(end - begin) == (size_t)count * pl_dtype_size(type),
             "load '%s': tensor '%s' has %lld bytes, its shape and type need %lld", path, name,
             (long long)(end - begin), (long long)count * (long long)pl_dtype_size(type));
  return pl_tensor_upload(device, type, rank, size, data + begin, out);
}

static pl_status read_all(const char *path, const pl_text *file, pl_device *device, json_t **header,
                          pl_named_tensor **list, int *count) {
  uint64_t length;
  PL_REQUIRE(file->length >= 8, "load '%s': %zu bytes are too few for a safetensors file", path, file->length);
  memcpy(&length, file->data, 8);
  PL_REQUIRE(length <= file->length - 8, "load '%s': the header should have %llu bytes, but the file ends after %zu",
             path, (unsigned long long)length, file->length - 8);
  json_error_t error;
  *header = json_loadb(file->data + 8, length, JSON_REJECT_DUPLICATES, &error);
  PL_REQUIRE(json_is_object(*header), "load '%s': the header is not a JSON object: %s", path, error.text);
  *list = pl_allocate((json_object_size(*header) + 1) * sizeof **list);
  const char *name;
  json_t *entry;
  json_object_foreach(*header, name, entry) {
    if (strcmp(name, "__metadata__") == 0) continue;
    pl_named_tensor *named = &(*list)[*count];
    PL_TRY(read_entry(path, name, entry, file->data + 8 + length, file->length - 8 - length, device, &named->tensor));
    named->name = pl_duplicate(name);
    ++*count;
  }
  return PL_OK;
}

pl_status pl_load_safetensors(const char *path, pl_device *device, pl_named_tensor **list, int *count) {
  pl_text file = {0};
  json_t *header = NULL;
  *list = NULL;
  *count = 0;
  pl_status status = pl_file_read(path, &file);
  if (status == PL_OK) status = read_all(path, &file, device, &header, list, count);
  if (status != PL_OK) {
    pl_named_tensors_release(*list, *count);
    *list = NULL;
    *count = 0;
  }
  json_decref(header);
  pl_text_release(&file);
  return status;
}

/* ---- npy: magic, version, header length, a Python literal, data ---- */

static const char magic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

pl_status pl_save_npy(const char *path, pl_tensor *tensor) {
  const pl_array *array = &tensor->array;
  PL_REQUIRE(names[array->dtype].npy, "save '%s': .npy has no type for %s; convert first or use .safetensors", path,
             pl_dtype_name(array->dtype));
  pl_text header = {0};
  pl_text_append(&header, magic, sizeof magic);
  pl_text_append(&header, "\x01\x00\x00\x00", 4); /* version 1.0, then the length, filled in below */
  pl_text_print(&header, "{'descr': '%s', 'fortran_order': False, 'shape': (", names[array->dtype].npy);
  for (int i = 0; i < array->rank; i++) pl_text_print(&header, "%lld,", (long long)array->size[i]);
  pl_text_print(&header, "), }");
  while (header.length % 64 != 63) pl_text_append(&header, " ", 1);
  pl_text_append(&header, "\n", 1);
  header.data[8] = (char)((header.length - 10) & 255);
  header.data[9] = (char)((header.length - 10) >> 8);
  size_t bytes = bytes_of(tensor);
  void *data = malloc(bytes ? bytes : 1);
  pl_status status = data ? pl_tensor_download(tensor, data) : PL_FAIL_MEMORY("save: no memory for %zu bytes", bytes);
  if (status == PL_OK) status = pl_file_write(path, (pl_piece[]){{header.data, header.length}, {data, bytes}}, 2);
  free(data);
  pl_text_release(&header);
  return status;
}

/* The text after 'key': in the header's dictionary, or NULL. */
static const char *value_of(const char *header, const char *key) {
  const char *at = strstr(header, key);
  if (at) at = strchr(at, ':');
  return at ? at + 1 + strspn(at + 1, " ") : NULL;
}

static pl_status parse_npy(const char *path, const pl_text *file, pl_device *device, pl_tensor **out) {
  PL_REQUIRE(file->length >= 10 && memcmp(file->data, magic, sizeof magic) == 0, "load '%s': not an .npy file", path);
  const unsigned char *bytes = (const unsigned char *)file->data;
  size_t wide = bytes[6] >= 2 ? 4 : 2, start = 8 + wide, length = 0;
  PL_REQUIRE(file->length >= start, "load '%s': the file is cut short", path);
  for (size_t i = wide; i-- > 0;) length = length << 8 | bytes[8 + i];
  PL_REQUIRE(length <= file->length - start, "load '%s': the file is cut short in its header", path);
  pl_text header = {0};
  pl_text_append(&header, file->data + start, length);
  const char *type_text = value_of(header.data, "'descr'"), *order = value_of(header.data, "'fortran_order'");
  const char *shape = value_of(header.data, "'shape'");
  pl_dtype type = PL_DTYPES;
  for (int i = 0; i < PL_DTYPES && type_text && *type_text; i++)
    if (names[i].npy && strncmp(type_text + 1, names[i].npy, strlen(names[i].npy)) == 0) type = (pl_dtype)i;
  bool columns = order && strncmp(order, "True", 4) == 0, valid = shape && *shape == '(' && order;
  int rank = 0;
  int64_t size[PL_RANK_MAX], count = 1;
  while (valid) {
    shape += 1 + strspn(shape + 1, " ");
    if (*shape == ')') break;
    char *end;
    valid = rank < PL_RANK_MAX;
    if (!valid) break;
    size[rank] = strtoll(shape, &end, 10);
    valid =
        end != shape && size[rank] >= 0 && !__builtin_mul_overflow(count, size[rank], &count) && count < INT64_MAX / 16;
    rank++;
    shape = end;
    if (*shape == ')') break;
    valid = valid && *shape == ',';
  }
  pl_text_release(&header);
  PL_REQUIRE(valid, "load '%s': the header is not one of .npy with at most %d dimensions", path, PL_RANK_MAX);
  PL_REQUIRE(type != PL_DTYPES, "load '%s': the element type is not supported (little-endian numbers and bool are)",
             path);
  size_t have = file->length - start - length, need = (size_t)count * pl_dtype_size(type);
  PL_REQUIRE(have >= need, "load '%s': %zu bytes of data, expected %zu: the file is cut short", path, have, need);
  for (int i = 0; columns && i < rank / 2; i++) { /* columns first: read as the transpose */
    int64_t other = size[rank - 1 - i];
    size[rank - 1 - i] = size[i];
    size[i] = other;
  }
  PL_TRY(pl_tensor_upload(device, type, rank, size, file->data + start + length, out));
  pl_array *array = &(*out)->array, packed = *array;
  for (int i = 0; columns && i < rank; i++) {
    array->size[i] = packed.size[rank - 1 - i];
    array->stride[i] = packed.stride[rank - 1 - i];
  }
  return PL_OK;
}

pl_status pl_load_npy(const char *path, pl_device *device, pl_tensor **tensor) {
  pl_text file = {0};
  pl_status status = pl_file_read(path, &file);
  if (status == PL_OK) status = parse_npy(path, &file, device, tensor);
  pl_text_release(&file);
  return status;
}
