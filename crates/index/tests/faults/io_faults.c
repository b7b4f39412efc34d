/*
 * Fails, or ends the process at, the Nth file operation below a folder. Loaded with LD_PRELOAD, so that it also covers
 * the libraries a program is made of.
 *
 *   FAULT_ROOT    only files below this folder count (an absolute path without links)
 *   FAULT_KINDS   sum of the numbers of the kinds that count, see below
 *   FAULT_AT      the operation that fails, from 1 on; 0 for none
 *   FAULT_ACTION  fail: this one fails; stick: this and all later ones fail; kill: the process ends before it;
 *                 torn: a write is done by half, then the process ends
 *   FAULT_ERRNO   the error, by default 5 (EIO)
 *   FAULT_SWITCH  if set, operations count only while this file exists
 *   FAULT_LOG     if set, a line for every operation that counts
 *
 * A read counts only if it asks for a page of a file that was neither read nor written before: others come from the
 * system's memory. Of a read that fails the first such page is bad from then on: every read of it fails.
 *
 * Everything goes to the kernel by syscall(), never by dlsym(): allocators map memory before symbols can be looked up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CREATE = 2, WRITE = 4, SYNC = 8, RENAME = 16, UNLINK = 32, MKDIR = 64, TRUNCATE = 128, MAP = 256, READ = 512 };

static char root[PATH_MAX];
static size_t root_len;
static long kinds, at;
static int error_number = EIO, log_fd = -1;
static char action = 'f';
static const char *switch_path;
static atomic_long count;

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("FAULT_ROOT");
    if (!text || strlen(text) >= sizeof root) return;
    strcpy(root, text);
    root_len = strlen(root);
    kinds = (text = getenv("FAULT_KINDS")) ? atol(text) : 0;
    at = (text = getenv("FAULT_AT")) ? atol(text) : 0;
    if ((text = getenv("FAULT_ACTION"))) action = text[0];
    if ((text = getenv("FAULT_ERRNO"))) error_number = atoi(text);
    switch_path = getenv("FAULT_SWITCH");
    if ((text = getenv("FAULT_LOG")))
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_below(const char *path) {
    return root_len && !strncmp(path, root, root_len) && (path[root_len] == '/' || !path[root_len]);
}

/* The absolute form of a path, as far as its text tells. */
static const char *absolute(int dir, const char *path, char *out) {
    if (path[0] == '/') return path;
    char link[64];
    ssize_t len;
    if (dir == AT_FDCWD) {
        len = getcwd(out, PATH_MAX) ? (ssize_t)strlen(out) : -1;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        len = syscall(SYS_readlinkat, AT_FDCWD, link, out, (size_t)PATH_MAX - 1);
    }
    if (len < 0 || len + strlen(path) + 2 > PATH_MAX) return path;
    out[len] = '/';
    while (path[0] == '.' && path[1] == '/') path += 2;
    strcpy(out + len + 1, path);
    return out;
}

static const char *name_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = syscall(SYS_readlinkat, AT_FDCWD, link, out, (size_t)PATH_MAX - 1);
    out[len < 0 ? 0 : len] = 0;
    return out;
}

static void note(long number, const char *call, const char *path, const char *what) {
    if (log_fd < 0) return;
    char line[PATH_MAX + 128];
    int len = snprintf(line, sizeof line, "%ld %s %s%s\n", number, call, path, what);
    if (len > 0) syscall(SYS_write, log_fd, line, (size_t)len < sizeof line ? (size_t)len : sizeof line - 1);
}

/* Counts an operation. 0: it goes ahead; -1: it fails, errno is set; 1: half of it is written, then the process ends. */
static int faulty(int kind, const char *call, const char *path) {
    if (!(kinds & kind) || !is_below(path)) return 0;
    if (switch_path && syscall(SYS_faccessat, AT_FDCWD, switch_path, F_OK)) return 0;
    long number = atomic_fetch_add(&count, 1) + 1;
    int now = at && (number == at || (action == 's' && number > at));
    note(number, call, path, now ? " FAULT" : "");
    if (!now) return 0;
    if (action == 't' && kind == WRITE) return 1;
    if (action == 'k' || action == 't') {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = error_number;
    return -1;
}

static int faulty_fd(int kind, const char *call, int fd) {
    char path[PATH_MAX];
    if (fd < 0 || !(kinds & kind)) return 0;
    return faulty(kind, call, name_of(fd, path));
}

static int faulty_at(int kind, const char *call, int dir, const char *path) {
    char whole[PATH_MAX];
    if (!(kinds & kind)) return 0;
    return faulty(kind, call, absolute(dir, path, whole));
}

enum { PAGE = 4096, SLOTS = 1 << 17 };

/* Pages that the system has in memory, by file and number, and the one that cannot be read. */
static struct page { ino_t file; off_t number; } pages[SLOTS], bad;
static atomic_flag pages_lock = ATOMIC_FLAG_INIT;

/* Whether a page is in memory; puts it there if asked to. The caller has the lock. */
static int in_memory(ino_t file, off_t number, int put) {
    size_t slot = ((size_t)file * 1000003u + (size_t)number * 2654435761u) % SLOTS;
    for (int tries = 0; tries < 64; tries++, slot = (slot + 1) % SLOTS) {
        if (!pages[slot].file) {
            if (put) pages[slot] = (struct page){file, number + 1};
            return 0;
        }
        if (pages[slot].file == file && pages[slot].number == number + 1) return 1;
    }
    return 1;
}

static void remember(int fd, off_t offset, size_t len) {
    struct stat about;
    char path[PATH_MAX];
    if (!(kinds & READ) || fd < 0 || !len || !is_below(name_of(fd, path)) || fstat(fd, &about)) return;
    while (atomic_flag_test_and_set(&pages_lock)) {}
    for (off_t page = offset / PAGE; page <= (offset + (off_t)len - 1) / PAGE; page++) in_memory(about.st_ino, page, 1);
    atomic_flag_clear(&pages_lock);
}

static int faulty_read(const char *call, int fd, off_t offset, size_t len) {
    struct stat about;
    char path[PATH_MAX];
    if (!(kinds & READ) || fd < 0 || !len || !is_below(name_of(fd, path))) return 0;
    if (fstat(fd, &about) || !S_ISREG(about.st_mode) || offset >= about.st_size) return 0;
    if (offset + (off_t)len > about.st_size) len = (size_t)(about.st_size - offset);
    off_t first = offset / PAGE, last = (offset + (off_t)len - 1) / PAGE, missing = -1;
    while (atomic_flag_test_and_set(&pages_lock)) {}
    int is_bad = bad.file == about.st_ino && bad.number > first && bad.number <= last + 1;
    for (off_t page = first; page <= last && missing < 0; page++)
        if (!in_memory(about.st_ino, page, 0)) missing = page;
    atomic_flag_clear(&pages_lock);
    if (is_bad) {
        errno = error_number;
        return -1;
    }
    if (missing < 0 || !faulty(READ, call, path)) return 0;
    bad = (struct page){about.st_ino, missing + 1};
    errno = error_number;
    return -1;
}

static off_t place(int fd) { return (off_t)syscall(SYS_lseek, fd, (off_t)0, SEEK_CUR); }

static void end(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static int open_at(const char *call, int dir, const char *path, int flags, mode_t mode) {
    int kind = OPEN | (flags & O_CREAT ? CREATE : 0);
    if (faulty_at(kind, call, dir, path)) return -1;
    return (int)syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE(flags) return open_at("open", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at("open", AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return open_at("openat", dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return open_at("openat", dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at("creat", AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_at("creat", AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

ssize_t write(int fd, const void *bytes, size_t len) {
    int fault = faulty_fd(WRITE, "write", fd);
    if (fault < 0) return -1;
    if (fault) { syscall(SYS_write, fd, bytes, len / 2); end(); }
    off_t offset = kinds & READ ? place(fd) : -1;
    if (offset >= 0) remember(fd, offset, len);
    return syscall(SYS_write, fd, bytes, len);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    int fault = faulty_fd(WRITE, "pwrite", fd);
    if (fault < 0) return -1;
    if (fault) { syscall(SYS_pwrite64, fd, bytes, len / 2, offset); end(); }
    remember(fd, offset, len);
    return syscall(SYS_pwrite64, fd, bytes, len, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset) { return pwrite(fd, bytes, len, offset); }

ssize_t writev(int fd, const struct iovec *parts, int n) {
    int fault = faulty_fd(WRITE, "writev", fd);
    if (fault < 0) return -1;
    if (fault) { if (n > 0) syscall(SYS_write, fd, parts[0].iov_base, parts[0].iov_len / 2); end(); }
    return syscall(SYS_writev, fd, parts, n);
}

ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t offset) {
    int fault = faulty_fd(WRITE, "pwritev", fd);
    if (fault < 0) return -1;
    if (fault) { if (n > 0) syscall(SYS_pwrite64, fd, parts[0].iov_base, parts[0].iov_len / 2, offset); end(); }
    return syscall(SYS_pwritev, fd, parts, n, offset, 0);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int n, off_t offset) { return pwritev(fd, parts, n, offset); }

ssize_t read(int fd, void *bytes, size_t len) {
    off_t offset = kinds & READ ? place(fd) : -1;
    if (offset >= 0 && faulty_read("read", fd, offset, len)) return -1;
    ssize_t done = syscall(SYS_read, fd, bytes, len);
    if (offset >= 0 && done > 0) remember(fd, offset, (size_t)done);
    return done;
}

ssize_t pread(int fd, void *bytes, size_t len, off_t offset) {
    if (faulty_read("pread", fd, offset, len)) return -1;
    ssize_t done = syscall(SYS_pread64, fd, bytes, len, offset);
    if (done > 0) remember(fd, offset, (size_t)done);
    return done;
}

ssize_t pread64(int fd, void *bytes, size_t len, off_t offset) { return pread(fd, bytes, len, offset); }

/* Copies within the kernel are left to reads and writes. */
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t len, unsigned int flags) {
    if (!(kinds & READ)) return syscall(SYS_copy_file_range, from, a, to, b, len, flags);
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile(int to, int from, off_t *offset, size_t len) {
    if (!(kinds & READ)) return syscall(SYS_sendfile, to, from, offset, len);
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t len) { return sendfile(to, from, offset, len); }

int fsync(int fd) { return faulty_fd(SYNC, "fsync", fd) ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return faulty_fd(SYNC, "fdatasync", fd) ? -1 : (int)syscall(SYS_fdatasync, fd); }
int sync_file_range(int fd, off_t from, off_t len, unsigned int flags) {
    return faulty_fd(SYNC, "sync_file_range", fd) ? -1 : (int)syscall(SYS_sync_file_range, fd, from, len, flags);
}

static int rename_at(int from_dir, const char *from, int to_dir, const char *to, unsigned int flags) {
    char whole[PATH_MAX];
    if ((kinds & RENAME) && faulty(RENAME, "rename", absolute(to_dir, to, whole))) return -1;
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int d, const char *from, int e, const char *to) { return rename_at(d, from, e, to, 0); }
int renameat2(int d, const char *from, int e, const char *to, unsigned int flags) { return rename_at(d, from, e, to, flags); }

int unlink(const char *path) {
    return faulty_at(UNLINK, "unlink", AT_FDCWD, path) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
int unlinkat(int dir, const char *path, int flags) {
    return faulty_at(UNLINK, "unlinkat", dir, path) ? -1 : (int)syscall(SYS_unlinkat, dir, path, flags);
}
int rmdir(const char *path) {
    return faulty_at(UNLINK, "rmdir", AT_FDCWD, path) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}
int mkdir(const char *path, mode_t mode) {
    return faulty_at(MKDIR, "mkdir", AT_FDCWD, path) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
int mkdirat(int dir, const char *path, mode_t mode) {
    return faulty_at(MKDIR, "mkdirat", dir, path) ? -1 : (int)syscall(SYS_mkdirat, dir, path, mode);
}
int ftruncate(int fd, off_t len) { return faulty_fd(TRUNCATE, "ftruncate", fd) ? -1 : (int)syscall(SYS_ftruncate, fd, len); }
int ftruncate64(int fd, off_t len) { return ftruncate(fd, len); }

void *mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0 && !(flags & MAP_ANONYMOUS) && faulty_fd(MAP, "mmap", fd)) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, len, protection, flags, fd, offset);
}
void *mmap64(void *address, size_t len, int protection, int flags, int fd, off_t offset) {
    return mmap(address, len, protection, flags, fd, offset);
}
