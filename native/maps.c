/* SPDX-License-Identifier: Apache-2.0 */
/* Pinned maps: opened in one call, since a table has some twenty of them; mapped one by one, when they are first used,
 * because the kernel enters every page of an array at once. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include "shim.h"

static int read_info(int fd, struct bpvs_map *out)
{
	struct bpf_map_info info = {};
	__u32 length = sizeof(info);
	__u64 page = (__u64)sysconf(_SC_PAGESIZE);
	__u64 stride;

	if (bpf_obj_get_info_by_fd(fd, &info, &length))
		return -errno;
	*out = (struct bpvs_map){
		.fd = fd,
		.entries = info.max_entries,
		.value_size = info.value_size,
		.type = info.type,
	};
	stride = (info.value_size + 7) & ~7U;
	if (info.map_flags & BPF_F_MMAPABLE)
		out->bytes = (info.max_entries * stride + page - 1) & ~(page - 1);
	return 0;
}

static int open_one(const char *dir, const char *name, struct bpvs_map *out)
{
	char path[PATH_MAX];
	int fd, err;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return -errno;
	err = read_info(fd, out);
	if (err)
		close(fd);
	return err;
}

int bpvs_map_mmap(struct bpvs_map *map)
{
	void *at;

	if (map->address)
		return 0;
	if (!map->bytes)
		return -ENODEV;
	at = mmap(NULL, map->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map->fd, 0);
	if (at == MAP_FAILED && errno == EPERM) /* frozen */
		at = mmap(NULL, map->bytes, PROT_READ, MAP_SHARED, map->fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	map->address = (__u64)(uintptr_t)at;
	return 0;
}

int bpvs_maps_open(const char *dir, const char *names, uint32_t count, struct bpvs_map *out,
		   uint32_t *failed)
{
	for (uint32_t i = 0; i < count; i++, names += strlen(names) + 1) {
		int err = open_one(dir, names, &out[i]);

		if (err) {
			bpvs_maps_close(out, i);
			*failed = i;
			return err;
		}
	}
	return 0;
}

void bpvs_maps_close(const struct bpvs_map *maps, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (maps[i].address)
			munmap((void *)(uintptr_t)maps[i].address, maps[i].bytes);
		close(maps[i].fd);
	}
}
