/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes the place of libbpf's own function, as this library's come before those of the libraries that it needs. libbpf 1.1 looks
 * for functions of the kernel that it does not have itself among those of modules, and where it may not (without SYS_ADMIN) fails
 * to load even what does without them. Later ones see no modules then, as this one does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/bpf.h>

int bpf_btf_get_next_id(__u32 start_id, __u32 *next_id)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.start_id = start_id;
	if (!syscall(SYS_bpf, BPF_BTF_GET_NEXT_ID, &attr, sizeof(attr))) {
		*next_id = attr.next_id;
		return 0;
	}
	if (errno == EPERM)
		errno = ENOENT;
	return -errno;
}
