// Stands between a program and the C library, for tests/campaign/campaign.py: at a chosen file operation below a folder,
// the process is killed or the operation fails. It also records what was forced to the disk, so that a power loss can be
// simulated. Build: cc -shared -fPIC -O1 -o shim.so shim.c -ldl
//
//   CAMPAIGN_ROOT     only operations on paths below this folder count
//   CAMPAIGN_AT       the number of the operation, from 1; 0 for none
//   CAMPAIGN_CALLS    which operations count: rename,unlink,mkdir,fsync,open,truncate
//   CAMPAIGN_HOW      kill, or the number of the error that the operation returns
//   CAMPAIGN_QUOTA    writes fail with ENOSPC after this many bytes; unlimited without it
//   CAMPAIGN_COUNTS   a file that receives how often each operation was called, in this order
//   CAMPAIGN_JOURNAL  a file that receives what was created, renamed and forced to the disk
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RENAME, UNLINK, MKDIR, FSYNC, OPEN, TRUNCATE, KINDS };
static const char *const NAMES[KINDS] = {"rename", "unlink", "mkdir", "fsync", "open", "truncate"};

static const char *root;
static size_t root_length;
static long at, error_number;
static unsigned counted;
static long long quota = -1;
static _Atomic long operations;
static _Atomic long long written;
static _Atomic long counts[KINDS];
static int journal = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void set_up(void) __attribute__((constructor));
static void report(void) __attribute__((destructor));

static void set_up(void) {
    root = getenv("CAMPAIGN_ROOT");
    if (root == NULL) return;
    root_length = strlen(root);
    const char *calls = getenv("CAMPAIGN_CALLS"), *how = getenv("CAMPAIGN_HOW"), *limit = getenv("CAMPAIGN_QUOTA");
    for (int kind = 0; kind < KINDS; kind++)
        if (calls != NULL && strstr(calls, NAMES[kind]) != NULL) counted |= 1u << kind;
    if (getenv("CAMPAIGN_AT") != NULL) at = atol(getenv("CAMPAIGN_AT"));
    if (how != NULL && strcmp(how, "kill") != 0) error_number = atol(how);
    if (limit != NULL) quota = atoll(limit);
    const char *path = getenv("CAMPAIGN_JOURNAL");
    if (path != NULL) journal = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void report(void) {
    const char *path = getenv("CAMPAIGN_COUNTS");
    if (root == NULL || path == NULL) return;
    int file = REAL(open)(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    for (int kind = 0; kind < KINDS; kind++) dprintf(file, "%s %ld\n", NAMES[kind], counts[kind]);
    close(file);
}

static int is_below(const char *path) {
    return root != NULL && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

// The path of an open file.
static int path_of(int file, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

// The absolute path of a path relative to an open folder.
static int path_at(int folder, const char *relative, char *path, size_t size) {
    if (relative[0] == '/') {
        snprintf(path, size, "%s", relative);
        return is_below(path);
    }
    if (folder == AT_FDCWD) {
        if (getcwd(path, size) == NULL) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, path, size - 1);
        if (length < 0) return 0;
        path[length] = 0;
    }
    size_t length = strlen(path);
    snprintf(path + length, size - length, "/%s", relative);
    return is_below(path);
}

// An operation on a path below the root: whether it fails, with errno set. It may not return.
static int meets(int kind) {
    counts[kind]++;
    if (at == 0 || !(counted >> kind & 1) || ++operations != at) return 0;
    if (error_number == 0) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = (int)error_number;
    return 1;
}

static void note(char what, long long number, const char *path) {
    if (journal < 0) return;
    char line[5000];
    int length = snprintf(line, sizeof line, "%c %lld %s\n", what, number, path);
    // One call, so that lines of several threads do not mix.
    if (length > 0) (void)!REAL(write)(journal, line, (size_t)length);
}

static int is_new(int folder, const char *path, int flags) {
    struct stat found;
    return (flags & O_CREAT) && fstatat(folder, path, &found, AT_SYMLINK_NOFOLLOW) != 0;
}

static int open_in(int folder, const char *path, int flags, mode_t mode) {
    char whole[4096];
    int below = path_at(folder, path, whole, sizeof whole);
    if (below && meets(OPEN)) return -1;
    int new = below && journal >= 0 && is_new(folder, path, flags);
    int file = REAL(openat)(folder, path, flags, mode);
    if (file >= 0 && new) note('N', 0, whole);
    return file;
}

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_in(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_in(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_in(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_in(folder, path, flags | O_LARGEFILE, mode);
}

int rename(const char *from, const char *to) {
    char whole[4096], source[4096];
    int below = path_at(AT_FDCWD, to, whole, sizeof whole);
    if (below && meets(RENAME)) return -1;
    int new = below && is_new(AT_FDCWD, to, O_CREAT);
    path_at(AT_FDCWD, from, source, sizeof source);
    int outcome = REAL(rename)(from, to);
    if (outcome == 0 && below) note('M', 0, source);
    if (outcome == 0 && below) note(new ? 'N' : 'R', 0, whole);
    return outcome;
}

int unlink(const char *path) {
    char whole[4096];
    if (path_at(AT_FDCWD, path, whole, sizeof whole) && meets(UNLINK)) return -1;
    return REAL(unlink)(path);
}

int unlinkat(int folder, const char *path, int flags) {
    char whole[4096];
    if (path_at(folder, path, whole, sizeof whole) && meets(UNLINK)) return -1;
    return REAL(unlinkat)(folder, path, flags);
}

int rmdir(const char *path) {
    char whole[4096];
    if (path_at(AT_FDCWD, path, whole, sizeof whole) && meets(UNLINK)) return -1;
    return REAL(rmdir)(path);
}

int mkdir(const char *path, mode_t mode) {
    char whole[4096];
    int below = path_at(AT_FDCWD, path, whole, sizeof whole);
    if (below && meets(MKDIR)) return -1;
    int outcome = REAL(mkdir)(path, mode);
    if (outcome == 0 && below) note('N', 0, whole);
    return outcome;
}

static int force(int file, int (*real)(int)) {
    char path[4096];
    int below = path_of(file, path, sizeof path);
    if (below && meets(FSYNC)) return -1;
    struct stat found;
    int known = below && fstat(file, &found) == 0;
    int outcome = real(file);
    if (outcome == 0 && known) note(S_ISDIR(found.st_mode) ? 'D' : 'F', found.st_size, path);
    return outcome;
}

int fsync(int file) {
    return force(file, REAL(fsync));
}

int fdatasync(int file) {
    return force(file, REAL(fdatasync));
}

int ftruncate(int file, off_t length) {
    char path[4096];
    if (path_of(file, path, sizeof path) && meets(TRUNCATE)) return -1;
    return REAL(ftruncate)(file, length);
}

int ftruncate64(int file, off64_t length) {
    char path[4096];
    if (path_of(file, path, sizeof path) && meets(TRUNCATE)) return -1;
    return REAL(ftruncate64)(file, length);
}

// How many of these bytes still fit; -1 if none does.
static ssize_t fitting(int file, size_t length) {
    char path[4096];
    if (quota < 0 || length == 0 || !path_of(file, path, sizeof path)) return (ssize_t)length;
    long long before = written, left = quota - before;
    if (left <= 0) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t fits = left < (long long)length ? (ssize_t)left : (ssize_t)length;
    written += fits;
    return fits;
}

ssize_t write(int file, const void *bytes, size_t length) {
    ssize_t fits = fitting(file, length);
    return fits < 0 ? -1 : REAL(write)(file, bytes, (size_t)fits);
}

ssize_t writev(int file, const struct iovec *pieces, int count) {
    size_t length = 0;
    for (int i = 0; i < count; i++) length += pieces[i].iov_len;
    ssize_t fits = fitting(file, length);
    if (fits < 0) return -1;
    // A part of the first piece is a valid outcome.
    if ((size_t)fits < length) return REAL(write)(file, pieces[0].iov_base, pieces[0].iov_len < (size_t)fits ? pieces[0].iov_len : (size_t)fits);
    return REAL(writev)(file, pieces, count);
}
