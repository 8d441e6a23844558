/* Loaded into a process with LD_PRELOAD: writes and syncs of files below FAULTY_FOLDER fail or take long, as the file FAULTY_ORDERS says.
   Its first word is "none", "erofs", "enospc", "eio" or "slow"; after "slow" come the milliseconds that a sync takes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int ours(int fd) {
    char link[64], path[4096];
    const char *folder = getenv("FAULTY_FOLDER");
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

/* 0: go on; else the errno. Sleeps for a slow sync. */
static int fault(int fd, int sync) {
    char word[16] = "none";
    int ms = 0;
    const char *orders = getenv("FAULTY_ORDERS");
    if (!orders || !ours(fd)) return 0;
    FILE *file = fopen(orders, "re");
    if (!file) return 0;
    if (fscanf(file, "%15s %d", word, &ms) < 1) strcpy(word, "none");
    fclose(file);
    if (!strcmp(word, "erofs")) return EROFS;
    if (!strcmp(word, "enospc")) return sync ? 0 : ENOSPC;
    if (!strcmp(word, "eio")) return EIO;
    if (sync && !strcmp(word, "slow")) {
        struct timespec pause = {ms / 1000, (ms % 1000) * 1000000L};
        nanosleep(&pause, NULL);
    }
    return 0;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define MAY_FAIL(fd, sync) do { int saved = errno, e = fault(fd, sync); errno = saved; if (e) { errno = e; return -1; } } while (0)

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { REAL(pwrite); MAY_FAIL(fd, 0); return real(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { REAL(pwrite64); MAY_FAIL(fd, 0); return real(fd, data, n, at); }
ssize_t write(int fd, const void *data, size_t n) { REAL(write); MAY_FAIL(fd, 0); return real(fd, data, n); }
int fsync(int fd) { REAL(fsync); MAY_FAIL(fd, 1); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); MAY_FAIL(fd, 1); return real(fd); }
