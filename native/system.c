/* SPDX-License-Identifier: Apache-2.0 */
/* Locks, namespaces, barriers: system calls that Node has no way to. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <linux/magic.h>
#include <linux/membarrier.h>
#include "shim.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* kernel 5.14 */
#endif

int bpvs_dir_open(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int bpvs_lock(int fd)
{
	struct stat st;

	while (flock(fd, LOCK_EX))
		if (errno != EINTR)
			return -errno;
	if (fstat(fd, &st))
		return -errno;
	if (st.st_nlink)
		return 0;
	flock(fd, LOCK_UN);
	return -ESTALE;
}

int bpvs_unlock(int fd)
{
	return flock(fd, LOCK_UN) ? -errno : 0;
}

int bpvs_close(int fd)
{
	return close(fd) ? -errno : 0;
}

/* Where membarrier refuses (nohz_full): updating a map of maps waits for a grace period too (kernel 4.20). */
static int grace_by_map(void)
{
	int inner = bpf_map_create(BPF_MAP_TYPE_ARRAY, "lb_grace_inner", 4, 4, 1, NULL);
	LIBBPF_OPTS(bpf_map_create_opts, opts, .inner_map_fd = (__u32)inner);
	int outer, err = 0;
	__u32 zero = 0;

	if (inner < 0)
		return -errno;
	outer = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "lb_grace", 4, 4, 1, &opts);
	if (outer < 0 || bpf_map_update_elem(outer, &zero, &inner, BPF_ANY))
		err = -errno;
	if (outer >= 0)
		close(outer);
	close(inner);
	return err;
}

int bpvs_grace_period(void)
{
	if (!syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		return 0;
	return errno == EINVAL ? grace_by_map() : -errno;
}

int bpvs_netns_cookie(uint64_t *cookie)
{
	socklen_t size = sizeof(*cookie);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &size))
		err = -errno;
	close(fd);
	return err;
}

static int enter_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = setns(fd, CLONE_NEWNET) ? -errno : 0;
	close(fd);
	return err;
}

/* What another thread, which may change namespaces and then ends, is asked to do. */
struct errand {
	const char *paths;
	const char *target;
	uint32_t count;
	uint64_t *out;
	int err;
};

static int run_errand(void *(*run)(void *), struct errand *errand)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, run, errand);

	if (err)
		return -err;
	pthread_join(thread, NULL);
	return errand->err;
}

static void *cookies_run(void *arg)
{
	struct errand *errand = arg;
	const char *path = errand->paths;

	for (uint32_t i = 0; i < errand->count; i++, path += strlen(path) + 1) {
		errand->out[i] = 0;
		if (!enter_netns(path))
			bpvs_netns_cookie(&errand->out[i]);
	}
	return NULL;
}

int bpvs_netns_cookies(const char *paths, uint32_t count, uint64_t *out)
{
	struct errand errand = { .paths = paths, .count = count, .out = out };

	return run_errand(cookies_run, &errand);
}

int bpvs_is_bpffs(const char *path)
{
	struct statfs st;

	return !statfs(path, &st) && st.f_type == BPF_FS_MAGIC;
}

static void *mount_run(void *arg)
{
	struct errand *errand = arg;
	int fd = open(errand->paths, O_RDONLY | O_CLOEXEC);

	/* A thread shares root and working directory with the others; only one of its own may change its mounts. */
	if (fd < 0 || unshare(CLONE_FS) || setns(fd, CLONE_NEWNS) ||
	    (!bpvs_is_bpffs(errand->target) && mount("bpf", errand->target, "bpf", 0, "mode=0700")))
		errand->err = -errno;
	if (fd >= 0)
		close(fd);
	return NULL;
}

int bpvs_mount_bpffs(const char *mount_ns, const char *path)
{
	struct errand errand = { .paths = mount_ns, .target = path };

	return run_errand(mount_run, &errand);
}
