// Loaded into a server by LD_PRELOAD: makes its clock wrong, its disk full, or its disk
// broken, as the first bytes of the file named by PGTEST_TROUBLE say at each moment.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct trouble {
	volatile int64_t shift; // nanoseconds that the clock is ahead
	volatile int32_t full;  // no file can grow
	volatile int32_t broken; // fsync fails
};

static struct trouble none, *now = &none;

// Looked up before main: signal handlers, too, call what is below, and dlsym takes locks.
static __typeof__(&clock_gettime) real_clock_gettime;
static __typeof__(&write) real_write;
static __typeof__(&pwrite64) real_pwrite64;
static __typeof__(&writev) real_writev;
static __typeof__(&pwritev64) real_pwritev64;
static __typeof__(&posix_fallocate64) real_posix_fallocate64;
static __typeof__(&fsync) real_fsync;
static __typeof__(&fdatasync) real_fdatasync;

#define FIND(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define LOOKUP(name) real_##name = FIND(name)
#define NEED(name) (real_##name ? real_##name : FIND(name)) // for what other libraries begin with

__attribute__((constructor)) static void begin(void)
{
	LOOKUP(clock_gettime);
	LOOKUP(write);
	LOOKUP(pwrite64);
	LOOKUP(writev);
	LOOKUP(pwritev64);
	LOOKUP(posix_fallocate64);
	LOOKUP(fsync);
	LOOKUP(fdatasync);
	const char *path = getenv("PGTEST_TROUBLE");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *at = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, fd, 0);
	if (at != MAP_FAILED)
		now = at;
	close(fd);
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int r = NEED(clock_gettime)(id, ts);
	int64_t shift = now->shift;
	if (r == 0 && shift != 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
		int64_t ns = ts->tv_nsec + shift % 1000000000;
		ts->tv_sec += shift / 1000000000;
		if (ns < 0) {
			ns += 1000000000;
			ts->tv_sec--;
		} else if (ns >= 1000000000) {
			ns -= 1000000000;
			ts->tv_sec++;
		}
		ts->tv_nsec = ns;
	}
	return r;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec ts;
	(void)tz;
	if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
		return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec ts;
	if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
		return -1;
	if (out)
		*out = ts.tv_sec;
	return ts.tv_sec;
}

// grows tells whether a write up to end makes the file longer and cannot be, for want
// of space. What overwrites finds its place.
static int grows(int fd, off_t end)
{
	struct stat st;
	if (!now->full || fd <= 2 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || end <= st.st_size)
		return 0;
	errno = ENOSPC;
	return 1;
}

// here is where a plain write begins.
static off_t here(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;
	if (flags >= 0 && (flags & O_APPEND) && fstat(fd, &st) == 0)
		return st.st_size;
	return lseek(fd, 0, SEEK_CUR);
}

static off_t total(const struct iovec *iov, int n)
{
	off_t sum = 0;
	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

ssize_t write(int fd, const void *buf, size_t n)
{
	if (now->full && grows(fd, here(fd) + n))
		return -1;
	return NEED(write)(fd, buf, n);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at)
{
	if (grows(fd, at + n))
		return -1;
	return NEED(pwrite64)(fd, buf, n, at);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at) { return pwrite64(fd, buf, n, at); }

ssize_t writev(int fd, const struct iovec *iov, int n)
{
	if (now->full && grows(fd, here(fd) + total(iov, n)))
		return -1;
	return NEED(writev)(fd, iov, n);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t at)
{
	if (grows(fd, at + total(iov, n)))
		return -1;
	return NEED(pwritev64)(fd, iov, n, at);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at) { return pwritev64(fd, iov, n, at); }

int posix_fallocate64(int fd, off64_t at, off64_t n)
{
	if (grows(fd, at + n))
		return ENOSPC;
	return NEED(posix_fallocate64)(fd, at, n);
}

int posix_fallocate(int fd, off_t at, off_t n) { return posix_fallocate64(fd, at, n); }

int fsync(int fd)
{
	if (now->broken) {
		errno = EIO;
		return -1;
	}
	return NEED(fsync)(fd);
}

int fdatasync(int fd)
{
	if (now->broken) {
		errno = EIO;
		return -1;
	}
	return NEED(fdatasync)(fd);
}
