// Fails an operation on files below a folder, for every library of the process. Loaded with LD_PRELOAD.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, FSYNC, RENAME, MKDIR, UNLINK, OPERATIONS };

static char folder[PATH_MAX];
static int failing = -1, error, lasting;
static long failing_from;
static atomic_long counts[OPERATIONS];

// The n-th operation from now on fails, n = 1, 2, …, and where it lasts, all after it.
void shim_fail(const char *path, int operation, long n, int number, int lasts) {
    snprintf(folder, sizeof folder, "%s/", path);
    failing_from = counts[operation] + n, error = number, lasting = lasts, failing = operation;
}

long shim_count(int operation) { return counts[operation]; }

static int is_below(const char *path) { return folder[0] && !strncmp(path, folder, strlen(folder)); }

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length >= 0;
}

static int fails(int operation) {
    long n = ++counts[operation];
    if (operation != failing || (lasting ? n < failing_from : n != failing_from)) return 0;
    errno = error;
    return 1;
}

static int descriptor_fails(int operation, int descriptor) {
    char path[PATH_MAX];
    return folder[0] && path_of(descriptor, path) && is_below(path) && fails(operation);
}

static int path_fails(int operation, int directory, const char *path) {
    char whole[2 * PATH_MAX] = "";
    if (!folder[0]) return 0;
    if (path[0] != '/') {
        if (directory == AT_FDCWD ? !getcwd(whole, PATH_MAX) : !path_of(directory, whole)) return 0;
        strcat(whole, "/");
    }
    strncat(whole, path, PATH_MAX - 1);
    return is_below(whole) && fails(operation);
}

#define REAL(name, ...) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

#define OPENING(name)                                                                    \
    int name(const char *path, int flags, ...) {                                         \
        va_list rest;                                                                    \
        va_start(rest, flags);                                                           \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;                \
        va_end(rest);                                                                    \
        return path_fails(OPEN, AT_FDCWD, path) ? -1 : REAL(name, path, flags, mode);    \
    }
OPENING(open)
OPENING(open64)

ssize_t write(int d, const void *data, size_t n) { return descriptor_fails(WRITE, d) ? -1 : REAL(write, d, data, n); }
ssize_t writev(int d, const struct iovec *v, int n) { return descriptor_fails(WRITE, d) ? -1 : REAL(writev, d, v, n); }
ssize_t pwrite(int d, const void *data, size_t n, off_t at) {
    return descriptor_fails(WRITE, d) ? -1 : REAL(pwrite, d, data, n, at);
}
ssize_t pwrite64(int d, const void *data, size_t n, off64_t at) {
    return descriptor_fails(WRITE, d) ? -1 : REAL(pwrite64, d, data, n, at);
}
int fsync(int d) { return descriptor_fails(FSYNC, d) ? -1 : REAL(fsync, d); }
int rename(const char *from, const char *to) {
    return path_fails(RENAME, AT_FDCWD, from) ? -1 : REAL(rename, from, to);
}
int mkdir(const char *path, mode_t mode) { return path_fails(MKDIR, AT_FDCWD, path) ? -1 : REAL(mkdir, path, mode); }
int unlink(const char *path) { return path_fails(UNLINK, AT_FDCWD, path) ? -1 : REAL(unlink, path); }
int unlinkat(int d, const char *path, int flags) {
    return path_fails(UNLINK, d, path) ? -1 : REAL(unlinkat, d, path, flags);
}
