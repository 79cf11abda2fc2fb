/* A library that is loaded before the C library (LD_PRELOAD) and ends the process at a chosen point.

   Points are counted: each call that changes a file below one folder, each fsync and fdatasync of such a file, and each
   call of crash_point(), which the program under test makes where it could be suspended. At point `at` the process gets
   SIGKILL before the call is made. In mode TORN a write is first made in half. In mode POWER every write since the last
   sync of its file is taken back first, as when the power fails; new names in the folder are assumed to stay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { KILL = 0, TORN = 1, POWER = 2 };

struct undo {
    struct undo *before;
    char path[512];
    ino_t inode;
    off_t offset, old_size;
    size_t length; /* bytes that were there before */
    char old[];
};

static char folder[512];
static long at, points;
static int mode;
static struct undo *undone;
static int inside; /* our own calls are not counted */

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

void crash_arm(const char *where, long when, int how) {
    snprintf(folder, sizeof folder, "%s", where);
    at = when, mode = how, points = 0;
}

long crash_points(void) { return points; }

static int watched(int fd, char *path) {
    char link[64];
    if (!folder[0] || inside) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 511);
    if (length <= 0) return 0;
    path[length] = 0;
    return !strncmp(path, folder, strlen(folder));
}

static void take_back(void) {
    inside = 1;
    for (struct undo *u = undone; u; u = u->before) {
        int fd = open(u->path, O_WRONLY);
        if (fd < 0) continue;
        if (u->length) pwrite(fd, u->old, u->length, u->offset);
        if (ftruncate(fd, u->old_size)) continue;
        close(fd);
    }
}

static void point(void) {
    if (!folder[0] || inside || ++points != at) return;
    if (mode == POWER) take_back();
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

void crash_point(void) { point(); }

static void remember(int fd, const char *path, off_t offset, size_t length) {
    struct stat now;
    if (mode != POWER || fstat(fd, &now)) return;
    struct undo *u = calloc(1, sizeof *u + length);
    snprintf(u->path, sizeof u->path, "%s", path);
    u->inode = now.st_ino, u->offset = offset, u->old_size = now.st_size, u->before = undone;
    inside = 1;
    char own[64];
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    int reader = open(own, O_RDONLY); /* the descriptor itself may be for writing only */
    ssize_t had = reader < 0 ? 0 : pread(reader, u->old, length, offset);
    if (reader >= 0) close(reader);
    inside = 0;
    u->length = had > 0 ? (size_t)had : 0;
    undone = u;
}

static void synced(int fd) {
    struct stat now;
    if (fstat(fd, &now)) return;
    for (struct undo **u = &undone; *u;)
        if ((*u)->inode == now.st_ino) {
            struct undo *gone = *u;
            *u = gone->before;
            free(gone);
        } else
            u = &(*u)->before;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    REAL(pwrite64);
    char path[512];
    if (watched(fd, path)) {
        if (mode == TORN && points + 1 == at && length > 1) real(fd, data, length / 2, offset);
        point();
        remember(fd, path, offset, length);
    }
    return real(fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    char path[512];
    if (watched(fd, path)) {
        if (mode == TORN && points + 1 == at && length > 1) real(fd, data, length / 2);
        point();
        remember(fd, path, lseek(fd, 0, SEEK_CUR), length);
    }
    return real(fd, data, length);
}

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    char path[512];
    struct stat now;
    if (watched(fd, path)) {
        point();
        if (!fstat(fd, &now) && now.st_size > length) remember(fd, path, length, now.st_size - length);
    }
    return real(fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fsync(int fd) {
    REAL(fsync);
    char path[512];
    int ours = watched(fd, path);
    if (ours) point();
    int result = real(fd);
    if (ours && !result) synced(fd);
    return result;
}

int fdatasync(int fd) {
    REAL(fdatasync);
    char path[512];
    int ours = watched(fd, path);
    if (ours) point();
    int result = real(fd);
    if (ours && !result) synced(fd);
    return result;
}

int unlink(const char *path) {
    REAL(unlink);
    if (!strncmp(path, folder, strlen(folder))) point();
    return real(path);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if (!strncmp(to, folder, strlen(folder))) point();
    return real(from, to);
}
