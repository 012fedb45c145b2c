// Init of the guest that measures a shared directory (virtio-fs): prints lines `figure NAME UNIT VALUE`, then resets the machine.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { DIRS = 6, FILES = 50, SIZE = 4096, BLOCK = 1 << 20, WRITTEN = 16 << 20 };

static char block[BLOCK] __attribute__((aligned(4096)));

static void end(void) {
    fflush(stdout);
    tcdrain(1);
    reboot(RB_AUTOBOOT);
    for (;;) pause();
}

static void fail(const char *what) {
    printf("failed to %s: %s\n", what, strerror(errno));
    end();
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void figure(const char *name, const char *unit, double amount, double start) {
    printf("figure %s %s %.1f\n", name, unit, amount / (now() - start));
}

// The guest's cache is empty afterwards.
static void mount_anew(void) {
    umount("/share");
    if (mount("share", "/share", "virtiofs", 0, NULL) < 0) fail("mount the share");
}

static const char *name_of(int dir, int file) {
    static char path[64];
    if (file < 0) snprintf(path, sizeof path, "/share/small/%d", dir);
    else snprintf(path, sizeof path, "/share/small/%d/file-%d", dir, file);
    return path;
}

static void read_all(const char *path, long expected) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) fail("open");
    long total = 0, n;
    while ((n = read(fd, block, BLOCK)) > 0) total += n;
    if (n < 0 || total != expected) fail("read");
    close(fd);
}

static void write_all(const char *path, long size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0) fail("create");
    for (long done = 0; done < size;) {
        long n = write(fd, block, size - done < BLOCK ? size - done : BLOCK);
        if (n <= 0) fail("write");
        done += n;
    }
    close(fd);
}

static void sequential(void) {
    struct stat big;
    if (stat("/share/big", &big) < 0) fail("find the big file");
    double start = now();
    read_all("/share/big", big.st_size);
    figure("sequential-read", "MB/s", big.st_size / 1e6, start);
    start = now();
    write_all("/share/new", WRITTEN);
    figure("sequential-write", "MB/s", WRITTEN / 1e6, start);
    unlink("/share/new");
}

// As when a tree is unpacked, listed, read and removed.
static void small_files(void) {
    if (mkdir("/share/small", 0755) < 0) fail("make a directory");
    double start = now();
    for (int dir = 0; dir < DIRS; dir++) {
        if (mkdir(name_of(dir, -1), 0755) < 0) fail("make a directory");
        for (int file = 0; file < FILES; file++) write_all(name_of(dir, file), SIZE);
    }
    figure("small-create", "files/s", DIRS * FILES, start);
    mount_anew();
    start = now();
    for (int dir = 0; dir < DIRS; dir++) {
        DIR *list = opendir(name_of(dir, -1));
        if (!list) fail("open a directory");
        struct dirent *entry;
        struct stat found;
        int count = 0;
        while ((entry = readdir(list)))
            if (entry->d_name[0] != '.') {
                if (fstatat(dirfd(list), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) < 0) fail("look at a file");
                count++;
            }
        if (count != FILES) fail("list a directory");
        closedir(list);
    }
    figure("small-list", "files/s", DIRS * FILES, start);
    mount_anew();
    start = now();
    for (int dir = 0; dir < DIRS; dir++)
        for (int file = 0; file < FILES; file++) {
            struct stat found;
            if (stat(name_of(dir, file), &found) < 0) fail("look at a file");
        }
    figure("small-stat", "files/s", DIRS * FILES, start);
    start = now();
    for (int dir = 0; dir < DIRS; dir++)
        for (int file = 0; file < FILES; file++) read_all(name_of(dir, file), SIZE);
    figure("small-read", "files/s", DIRS * FILES, start);
    start = now();
    for (int dir = 0; dir < DIRS; dir++) {
        for (int file = 0; file < FILES; file++)
            if (unlink(name_of(dir, file)) < 0) fail("remove a file");
        if (rmdir(name_of(dir, -1)) < 0) fail("remove a directory");
    }
    figure("small-remove", "files/s", DIRS * FILES, start);
    if (rmdir("/share/small") < 0) fail("remove a directory");
}

int main(void) {
    mkdir("/share", 0755);
    memset(block, 0x5a, BLOCK);
    mount_anew();
    sequential();
    small_files();
    puts("finished");
    end();
}
