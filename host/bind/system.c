/* What scripts ask of the machine: memory and devices, time, files; and the optimiser's step over many parameters. */
#include "host/bind/system.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/home.h"
#include "host/bind/construct.h"
#include "host/bind/handle.h"
#include "host/tensor/files.h"
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- memory and devices ---- */

/* memory() -> { cpu = { live=, cached=, peak=, buffers= }, ... }, bytes */
static int memory(lua_State *L) {
  lua_createtable(L, 0, pl_device_count());
  for (int i = 0; i < pl_device_count(); i++) {
    pl_memory now;
    pl_device_memory(pl_device_at(i), &now);
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, (lua_Integer)now.live), lua_setfield(L, -2, "live");
    lua_pushinteger(L, (lua_Integer)now.cached), lua_setfield(L, -2, "cached");
    lua_pushinteger(L, (lua_Integer)now.peak), lua_setfield(L, -2, "peak");
    lua_pushinteger(L, (lua_Integer)now.buffers), lua_setfield(L, -2, "buffers");
    lua_setfield(L, -2, pl_device_at(i)->name);
  }
  return 1;
}

static pl_device *optional_device(lua_State *L, int index, const char *function) {
  return lua_isnoneornil(L, index) ? pl_device_at(0) : pl_check_device(L, index, function);
}

/* memory_limit(bytes | nil [, device]): live bytes may not pass it; nil lifts it. */
static int memory_limit(lua_State *L) {
  pl_device *device = optional_device(L, 2, "memory_limit");
  lua_Integer bytes = lua_isnoneornil(L, 1) ? 0 : pl_check_integer(L, 1, "memory_limit", "bytes");
  if (!lua_isnoneornil(L, 1) && bytes <= 0)
    return pl_error(L, "memory_limit: bytes: expected a positive number or nil, got %I", bytes);
  pl_device_limit(device, bytes > 0 ? (size_t)bytes : SIZE_MAX);
  return 0;
}

/* reset_peak_memory([device]): the peak of pl.memory() counts from now. Waits for the device, because a peak of zero
 * later says that there is nothing to wait for. */
static int reset_peak_memory(lua_State *L) {
  pl_device *device = optional_device(L, 1, "reset_peak_memory");
  pl_raise_unless_ok(L, device->synchronize(device));
  pl_device_reset_peak(device);
  return 0;
}

/* devices() -> array of { name=, description= } */
static int devices(lua_State *L) {
  pl_device_find_all();
  lua_createtable(L, pl_device_count(), 0);
  for (int i = 0; i < pl_device_count(); i++) {
    pl_device *device = pl_device_at(i);
    pl_text text = {0};
    lua_createtable(L, 0, 2);
    lua_pushstring(L, device->name), lua_setfield(L, -2, "name");
    device->describe(device, &text);
    lua_pushlstring(L, text.data, text.length);
    pl_text_release(&text);
    lua_setfield(L, -2, "description");
    lua_seti(L, -2, i + 1);
  }
  return 1;
}

/* compilations([device]) -> { compiled=, cached=, total_ms=, most_ms= }: kernels that this process compiled for devices
 * of that kind, and took from the cache on disk; the time that compiling took, and the slowest of them */
static int compilations(lua_State *L) {
  pl_device *device = optional_device(L, 1, "compilations");
  pl_compilations now = device->compilations ? device->compilations() : (pl_compilations){0};
  lua_createtable(L, 0, 4);
  lua_pushinteger(L, (lua_Integer)now.compiled), lua_setfield(L, -2, "compiled");
  lua_pushinteger(L, (lua_Integer)now.cached), lua_setfield(L, -2, "cached");
  lua_pushnumber(L, now.total_ms), lua_setfield(L, -2, "total_ms");
  lua_pushnumber(L, now.most_ms), lua_setfield(L, -2, "most_ms");
  return 1;
}

pl_status pl_system_settle(void) {
  for (int i = 0; i < pl_device_count(); i++) {
    pl_memory used;
    pl_device_memory(pl_device_at(i), &used);
    if (used.peak == 0) continue;
    pl_status status = pl_device_at(i)->synchronize(pl_device_at(i));
    if (status != PL_OK && !(status == PL_LOST && pl_loss_raised())) return status;
  }
  return PL_OK;
}

/* settle(): waits for every device that is in use */
static int settle(lua_State *L) {
  pl_raise_unless_ok(L, pl_system_settle());
  return 0;
}

static int synchronize(lua_State *L) {
  pl_device *device = optional_device(L, 1, "synchronize");
  pl_raise_unless_ok(L, device->synchronize(device));
  return 0;
}

/* tf32([on]) -> whether products of float32 could round to tf32 before the call */
static int tf32(lua_State *L) {
  lua_pushboolean(L, pl_tf32_allowed());
  if (!lua_isnoneornil(L, 1)) {
    if (!lua_isboolean(L, 1)) return pl_error(L, "tf32: on: expected true or false, got %s", luaL_typename(L, 1));
    pl_tf32_allow(lua_toboolean(L, 1));
  }
  return 1;
}

/* autocast([name | false]) -> the name before, or false: the type to which products of float32 round their operands */
static int autocast(lua_State *L) {
  pl_dtype before = pl_autocast();
  if (lua_type(L, 1) == LUA_TBOOLEAN && !lua_toboolean(L, 1))
    pl_set_autocast(PL_F32);
  else if (!lua_isnoneornil(L, 1)) {
    pl_dtype type = pl_check_dtype(L, 1, "autocast");
    if (type != PL_BF16 && type != PL_F16)
      return pl_error(L, "autocast: dtype: expected bfloat16 or float16, got %s", pl_dtype_name(type));
    pl_set_autocast(type);
  }
  if (before == PL_F32)
    lua_pushboolean(L, 0);
  else
    lua_pushstring(L, pl_dtype_name(before));
  return 1;
}

/* threads([n]) -> threads that operations on the first device use */
static int threads(lua_State *L) {
  pl_device *device = pl_device_at(0);
  lua_Integer n = lua_isnoneornil(L, 1) ? 0 : pl_check_integer(L, 1, "threads", "n");
  if (!lua_isnoneornil(L, 1) && (n < 1 || n > 4096)) return pl_error(L, "threads: n: expected 1..4096, got %I", n);
  lua_pushinteger(L, device->threads ? device->threads(device, (int)n) : 1);
  return 1;
}

/* time() -> seconds on a clock that only goes forward */
static int now(lua_State *L) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  lua_pushnumber(L, (double)t.tv_sec + 1e-9 * (double)t.tv_nsec);
  return 1;
}

/* sleep(seconds): an interrupt ends it */
static int sleep_for(lua_State *L) {
  double seconds = luaL_checknumber(L, 1);
  if (!(seconds >= 0)) return pl_error(L, "sleep: seconds: expected a number of 0 or more, got %f", seconds);
  for (double until = pl_now_ms() + 1e3 * seconds, left; (left = until - pl_now_ms()) > 0;) {
    enum { LOOK_MS = 20 }; /* an interrupt that just missed the wait is seen after this */
    double ms = left < LOOK_MS ? left : LOOK_MS;
    nanosleep(&(struct timespec){.tv_nsec = (long)(1e6 * ms)}, NULL);
    pl_raise_unless_ok(L, pl_check_interrupt());
  }
  return 0;
}

/* ---- files ---- */

static const char *check_path(lua_State *L, const char *function) {
  if (lua_type(L, 1) != LUA_TSTRING) pl_error(L, "%s: path: expected a string, got %s", function, luaL_typename(L, 1));
  return lua_tostring(L, 1);
}

static bool ends_with(const char *path, const char *ending) {
  size_t length = strlen(path), wanted = strlen(ending);
  return length >= wanted && strcmp(path + length - wanted, ending) == 0;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const pl_named_tensor *)a)->name, ((const pl_named_tensor *)b)->name);
}

/* The tensors of the table at 2 in a userdata left on the stack, by name; names and tensors stay the table's. */
static pl_named_tensor *read_named(lua_State *L, int *count) {
  *count = 0;
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      pl_error(L, "save: tensors: expected { name = tensor }, got a key of type %s", luaL_typename(L, -2));
    ++*count;
  }
  pl_named_tensor *list = lua_newuserdatauv(L, (size_t)(*count + 1) * sizeof *list, 0);
  int i = 0;
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1), i++)
    list[i] =
        (pl_named_tensor){(char *)(uintptr_t)lua_tostring(L, -2), pl_check_tensor(L, -1, "save", lua_tostring(L, -2))};
  qsort(list, (size_t)*count, sizeof *list, compare_names); /* so that equal tables give equal files */
  return list;
}

static int save(lua_State *L) {
  const char *path = check_path(L, "save");
  lua_settop(L, 2);
  bool single = pl_is_tensor(L, 2);
  if (!single && !lua_istable(L, 2))
    return pl_error(L, "save: tensors: expected { name = tensor } or a tensor, got %s", luaL_typename(L, 2));
  if (ends_with(path, ".npy")) {
    int count = 1;
    pl_named_tensor one = {.tensor = single ? pl_check_tensor(L, 2, "save", "tensor") : NULL}, *list = &one;
    if (!single) list = read_named(L, &count);
    if (count != 1) return pl_error(L, "save: .npy holds one tensor, got %d; use .safetensors", count);
    pl_raise_unless_ok(L, pl_save_npy(path, list->tensor));
  } else if (ends_with(path, ".safetensors")) {
    int count;
    if (single) return pl_error(L, "save: .safetensors holds { name = tensor }, got a bare tensor");
    pl_named_tensor *list = read_named(L, &count);
    pl_raise_unless_ok(L, pl_save_safetensors(path, list, count));
  } else
    return pl_error(L, "save: path: expected a name ending in .safetensors or .npy, got '%s'", path);
  return 0;
}

static int load(lua_State *L) {
  const char *path = check_path(L, "load");
  lua_settop(L, 2);
  pl_device *device = pl_device_at(0);
  if (lua_istable(L, 2)) {
    if (lua_getfield(L, 2, "device") != LUA_TNIL) device = pl_check_device(L, -1, "load");
    lua_pop(L, 1);
  } else if (!lua_isnil(L, 2))
    device = pl_check_device(L, 2, "load");
  if (ends_with(path, ".npy")) {
    pl_tensor **place = pl_push_handle(L);
    pl_raise_unless_ok(L, pl_load_npy(path, device, place));
    return 1;
  }
  if (!ends_with(path, ".safetensors"))
    return pl_error(L, "load: path: expected a name ending in .safetensors or .npy, got '%s'", path);
  pl_named_tensor *list;
  int count;
  pl_raise_unless_ok(L, pl_load_safetensors(path, device, &list, &count));
  /* Handles first into a table, so that an error for want of memory loses only the list. */
  lua_createtable(L, 0, count);
  for (int i = 0; i < count; i++) {
    pl_push_tensor(L, list[i].tensor);
    list[i].tensor = NULL;
    lua_setfield(L, -2, list[i].name);
  }
  pl_named_tensors_release(list, count);
  return 1;
}

/* write_file(path, text): atomically */
static int write_file(lua_State *L) {
  size_t length;
  const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &length);
  pl_raise_unless_ok(L, pl_file_write(path, &(pl_piece){text, length}, 1));
  return 0;
}

/* The value on top of the stack, or nil and the message of a failed status. */
static int value_or_message(lua_State *L, pl_status status) {
  if (status == PL_OK) return 1;
  lua_pushnil(L);
  lua_pushstring(L, pl_message_text());
  return 2;
}

/* append_lines(path, text) -> true, or nil and why not: whole lines, safe with other processes that append there */
static int append_lines(lua_State *L) {
  size_t length;
  const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &length);
  lua_pushboolean(L, 1);
  return value_or_message(L, pl_file_append(path, text, length));
}

/* cache_folder() -> path of the folder for what may be lost, or nil and why there is none */
static int cache_folder(lua_State *L) {
  pl_text folder = {0};
  pl_status status = pl_home_cache(&folder);
  lua_pushlstring(L, folder.data ? folder.data : "", folder.length);
  pl_text_release(&folder);
  return value_or_message(L, status);
}

/* make_directory(path): with its parents */
static int make_directory(lua_State *L) {
  pl_raise_unless_ok(L, pl_directory_create(luaL_checkstring(L, 1)));
  return 0;
}

static const char FOLDER[] = "perilune.folder"; /* a DIR * that the collector closes */

static int close_folder(lua_State *L) {
  DIR **folder = lua_touserdata(L, 1);
  if (*folder) closedir(*folder);
  *folder = NULL;
  return 0;
}

static bool is_folder(DIR *folder, const struct dirent *entry) {
  struct stat found;
  if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK) return entry->d_type == DT_DIR;
  return fstatat(dirfd(folder), entry->d_name, &found, 0) == 0 && S_ISDIR(found.st_mode);
}

/* list_directory(path, most) -> the names of at most `most` entries, those of folders with a '/' behind; nil where the
 * folder cannot be read */
static int list_directory(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  lua_Integer most = luaL_checkinteger(L, 2), count = 0;
  DIR **folder = lua_newuserdatauv(L, sizeof *folder, 0);
  *folder = NULL;
  luaL_setmetatable(L, FOLDER);
  *folder = opendir(path);
  if (!*folder) return 0;
  lua_newtable(L);
  for (struct dirent *entry; count < most && (entry = readdir(*folder));) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    lua_pushfstring(L, "%s%s", entry->d_name, is_folder(*folder, entry) ? "/" : "");
    lua_rawseti(L, -2, ++count);
  }
  closedir(*folder);
  *folder = NULL;
  return 1;
}

/* terminal_columns() -> the width of the terminal at the standard error; nil where there is none or it does not tell */
static int terminal_columns(lua_State *L) {
  struct winsize size;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 0;
  lua_pushinteger(L, size.ws_col);
  return 1;
}

/* ---- the optimiser's step ---- */

static double number_field(lua_State *L, const char *name) {
  if (lua_getfield(L, 1, name) != LUA_TNUMBER)
    pl_error(L, "adam_step: %s: expected a number, got %s", name, luaL_typename(L, -1));
  double value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return value;
}

/* adam_step{ parameters=, first=, second=, master=, rate=, beta1=, beta2=, epsilon=, decay=, step=, decoupled= }: in
 * place, from the parameters' gradients; those without one are left alone. master has a tensor, float32, at the place
 * of each parameter of 16 bits. */
static int adam_step(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  double step = number_field(L, "step");
  pl_adam factors = {.rate = number_field(L, "rate"),
                     .beta1 = number_field(L, "beta1"),
                     .beta2 = number_field(L, "beta2"),
                     .epsilon = number_field(L, "epsilon"),
                     .decay = number_field(L, "decay")};
  factors.correction1 = 1 - pow(factors.beta1, step);
  factors.correction2 = 1 - pow(factors.beta2, step);
  lua_getfield(L, 1, "decoupled");
  factors.decoupled = lua_toboolean(L, -1);
  lua_settop(L, 1);
  enum { LISTS = 4 };
  static const char *const lists[LISTS] = {"parameters", "first", "second", "master"};
  for (int i = 0; i < LISTS; i++)
    if (lua_getfield(L, 1, lists[i]) != LUA_TTABLE)
      return pl_error(L, "adam_step: %s: expected a table of tensors, got %s", lists[i], luaL_typename(L, -1));
  int count = (int)luaL_len(L, 2);
  pl_tensor **t = lua_newuserdatauv(L, (size_t)(LISTS * count + 1) * sizeof *t, 0); /* the tables keep the tensors */
  for (int k = 0; k < LISTS; k++)
    for (int i = 0; i < count; i++) {
      bool absent = lua_geti(L, 2 + k, i + 1) == LUA_TNIL && k == LISTS - 1;
      t[k * count + i] = absent ? NULL : pl_check_tensor(L, -1, "adam_step", lists[k]);
      lua_pop(L, 1);
    }
  bool was = pl_set_recording(false);
  pl_status status = pl_adam_step(t, t + count, t + 2 * count, t + 3 * count, count, &factors);
  pl_set_recording(was);
  pl_raise_unless_ok(L, status);
  return 0;
}

typedef struct {
  pl_tensor **list, **out;
  int count;
} squares;

static pl_status run_squares(void *context) {
  squares *s = context;
  return pl_sum_of_squares(s->list, s->count, s->out);
}

/* The tensors of the table at 1, which keeps them: an array under the collector's care, their number in *count. */
static pl_tensor **tensors_of(lua_State *L, const char *operation, int *count) {
  luaL_checktype(L, 1, LUA_TTABLE);
  *count = (int)luaL_len(L, 1);
  pl_tensor **list = lua_newuserdatauv(L, (size_t)(*count + 1) * sizeof *list, 0);
  for (int i = 0; i < *count; i++) {
    lua_geti(L, 1, i + 1);
    list[i] = pl_check_tensor(L, -1, operation, "list");
    lua_pop(L, 1);
  }
  return list;
}

/* sum_of_squares{ t1, t2, .. } -> tensor of one element, outside the graph */
static int sum_of_squares(lua_State *L) {
  squares s;
  s.list = tensors_of(L, "sum_of_squares", &s.count);
  s.out = pl_push_handle(L);
  pl_run(L, "sum_of_squares", run_squares, &s);
  return 1;
}

/* scale_all({ t1, t2, .. }, factor): in place */
static int scale_all(lua_State *L) {
  int count;
  double factor = luaL_checknumber(L, 2);
  pl_tensor **list = tensors_of(L, "scale_all", &count);
  bool was = pl_set_recording(false);
  pl_status status = pl_scale_all(list, count, factor);
  pl_set_recording(was);
  pl_raise_unless_ok(L, status);
  return 0;
}

void pl_register_system(lua_State *L) {
  static const luaL_Reg functions[] = {{"memory", memory},
                                       {"memory_limit", memory_limit},
                                       {"reset_peak_memory", reset_peak_memory},
                                       {"devices", devices},
                                       {"compilations", compilations},
                                       {"settle", settle},
                                       {"synchronize", synchronize},
                                       {"threads", threads},
                                       {"tf32", tf32},
                                       {"autocast", autocast},
                                       {"time", now},
                                       {"sleep", sleep_for},
                                       {"save", save},
                                       {"load", load},
                                       {"write_file", write_file},
                                       {"append_lines", append_lines},
                                       {"cache_folder", cache_folder},
                                       {"make_directory", make_directory},
                                       {"list_directory", list_directory},
                                       {"terminal_columns", terminal_columns},
                                       {"adam_step", adam_step},
                                       {"sum_of_squares", sum_of_squares},
                                       {"scale_all", scale_all},
                                       {0}};
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, FOLDER);
  lua_pushcfunction(L, close_folder);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}
