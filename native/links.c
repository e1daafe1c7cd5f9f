/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching programs: tcx and XDP links, and clsact filters where the kernel has no tcx. */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include "shim.h"

/* Where our filters sit on clsact; nobody else's are touched. */
enum { CLSACT_HANDLE = 1, CLSACT_PRIORITY = 0xb5 };

/* By hand: libbpf 1.1 does not know tcx (kernel 6.6), and knows no attach type that it was not built with. */
int bpvs_link_create(int prog_fd, int ifindex, uint32_t hook, uint32_t flags)
{
	union bpf_attr attr;
	long fd;

	memset(&attr, 0, sizeof(attr));
	attr.link_create.prog_fd = (__u32)prog_fd;
	attr.link_create.target_ifindex = (__u32)ifindex;
	attr.link_create.attach_type = hook;
	attr.link_create.flags = flags;
	fd = syscall(__NR_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
	return fd < 0 ? -errno : (int)fd;
}

int bpvs_link_update(int link_fd, int prog_fd)
{
	return bpf_link_update(link_fd, prog_fd, NULL) ? -errno : 0;
}

int bpvs_pin(int fd, const char *path)
{
	return bpf_obj_pin(fd, path) ? -errno : 0;
}

int bpvs_get(const char *path)
{
	int fd = bpf_obj_get(path);

	return fd < 0 ? -errno : fd;
}

int bpvs_link_info(int link_fd, uint32_t out[3])
{
	struct bpf_link_info info = {};
	__u32 length = sizeof(info);

	if (bpf_obj_get_info_by_fd(link_fd, &info, &length))
		return -errno;
	out[0] = info.type;
	out[1] = info.xdp.ifindex; /* tcx has its ifindex in the same place */
	out[2] = info.prog_id;
	return 0;
}

int bpvs_prog_id(int prog_fd, uint32_t *id)
{
	struct bpf_prog_info info = {};
	__u32 length = sizeof(info);

	if (bpf_obj_get_info_by_fd(prog_fd, &info, &length))
		return -errno;
	*id = info.id;
	return 0;
}

static struct bpf_tc_hook clsact_hook(int ifindex, int egress)
{
	return (struct bpf_tc_hook){
		.sz = sizeof(struct bpf_tc_hook),
		.ifindex = ifindex,
		.attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS,
	};
}

static struct bpf_tc_opts clsact_opts(void)
{
	return (struct bpf_tc_opts){
		.sz = sizeof(struct bpf_tc_opts),
		.handle = CLSACT_HANDLE,
		.priority = CLSACT_PRIORITY,
	};
}

int bpvs_clsact_attach(int prog_fd, int ifindex, int egress)
{
	struct bpf_tc_hook hook = clsact_hook(ifindex, egress);
	struct bpf_tc_opts opts = clsact_opts();
	int err = bpf_tc_hook_create(&hook);

	if (err && err != -EEXIST)
		return err;
	opts.prog_fd = prog_fd;
	opts.flags = BPF_TC_F_REPLACE;
	return bpf_tc_attach(&hook, &opts);
}

int bpvs_clsact_detach(int ifindex, int egress)
{
	struct bpf_tc_hook hook = clsact_hook(ifindex, egress);
	struct bpf_tc_opts opts = clsact_opts();

	return bpf_tc_detach(&hook, &opts);
}

int bpvs_clsact_tidy(int ifindex)
{
	struct bpf_tc_hook hook = clsact_hook(ifindex, 0);
	int ingress = bpvs_clsact_filters(ifindex, 0), egress = bpvs_clsact_filters(ifindex, 1);

	if (ingress || egress)
		return ingress < 0 ? ingress : egress < 0 ? egress : 0;
	hook.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	return bpf_tc_hook_destroy(&hook);
}

int bpvs_clsact_query(int ifindex, int egress, uint32_t *id)
{
	struct bpf_tc_hook hook = clsact_hook(ifindex, egress);
	struct bpf_tc_opts opts = clsact_opts();
	int err = bpf_tc_query(&hook, &opts);

	*id = err ? 0 : opts.prog_id;
	return err == -ENOENT || err == -EINVAL ? 0 : err; /* EINVAL: no clsact qdisc */
}

int bpvs_prog_run(int prog_fd, struct bpvs_run *run)
{
	struct bpf_test_run_opts opts = {
		.sz = sizeof(opts),
		.data_in = (const void *)(uintptr_t)run->data_in,
		.data_size_in = run->data_in_size,
		.data_out = (void *)(uintptr_t)run->data_out,
		.data_size_out = run->data_out_size,
		.ctx_in = (const void *)(uintptr_t)run->ctx_in,
		.ctx_size_in = run->ctx_in_size,
		.ctx_out = (void *)(uintptr_t)run->ctx_out,
		.ctx_size_out = run->ctx_out_size,
		.repeat = (int)run->repeat,
	};
	int err = bpf_prog_test_run_opts(prog_fd, &opts);

	run->data_out_size = opts.data_size_out;
	run->ctx_out_size = opts.ctx_size_out;
	run->retval = opts.retval;
	run->duration_ns = opts.duration;
	return err ? -errno : 0;
}

int bpvs_possible_cpus(void)
{
	return libbpf_num_possible_cpus();
}
