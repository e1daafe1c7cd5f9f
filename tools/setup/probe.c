/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks the running kernel for what bpvs uses, feature by feature, never by version. Prints one line for each thing that
 * is missing ("lacks ...", "refuses ...") and fails if there is any.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

/* r0 = 0; exit */
static const struct bpf_insn nothing[] = {
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
	{ .code = BPF_JMP | BPF_EXIT },
};

/* r0 = 0; lock cmpxchg [r10-8], r1 after initialising both: what needs -mcpu=v3 and atomics that return a value. */
static const struct bpf_insn atomic[] = {
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_1, .imm = 1 },
	{ .code = BPF_STX | BPF_MEM | BPF_DW,
	  .dst_reg = BPF_REG_10,
	  .src_reg = BPF_REG_1,
	  .off = -8 },
	{ .code = BPF_STX | BPF_ATOMIC | BPF_DW,
	  .dst_reg = BPF_REG_10,
	  .src_reg = BPF_REG_1,
	  .off = -8,
	  .imm = BPF_CMPXCHG },
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
	{ .code = BPF_JMP | BPF_EXIT },
};

static const struct {
	const char *name;
	enum bpf_prog_type type;
} programs[] = {
	{ "traffic control programs (CONFIG_NET_CLS_BPF, CONFIG_NET_SCH_INGRESS)",
	  BPF_PROG_TYPE_SCHED_CLS },
	{ "XDP programs", BPF_PROG_TYPE_XDP },
};

static const struct {
	const char *name;
	enum bpf_func_id id;
} helpers[] = {
	{ "bpf_loop", BPF_FUNC_loop },
	{ "bpf_jiffies64", BPF_FUNC_jiffies64 },
	{ "bpf_ktime_get_ns", BPF_FUNC_ktime_get_ns },
	{ "bpf_fib_lookup", BPF_FUNC_fib_lookup },
	{ "bpf_redirect", BPF_FUNC_redirect },
};

static int complaints;

static void lacks(const char *what)
{
	printf("lacks %s\n", what);
	complaints++;
}

static int load(enum bpf_prog_type type, const struct bpf_insn *insns, size_t count)
{
	return bpf_prog_load(type, "bpvs_probe", "Dual BSD/GPL", insns, count, NULL);
}

/* Loads a program that does nothing: whether we may at all, and whether it is compiled. */
static void probe_jit(void)
{
	struct bpf_prog_info info = { 0 };
	__u32 length = sizeof(info);
	int fd = load(BPF_PROG_TYPE_SOCKET_FILTER, nothing, sizeof(nothing) / sizeof(*nothing));

	if (fd < 0) {
		printf("refuses to load a BPF program: %s%s\n", strerror(errno),
		       errno == EPERM
			       ? " (a container without CAP_BPF and CAP_NET_ADMIN, or lockdown)"
			       : "");
		complaints++;
		return;
	}
	if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0 || info.jited_prog_len == 0)
		lacks("a running BPF JIT (CONFIG_BPF_JIT, sysctl net.core.bpf_jit_enable=1)");
	close(fd);
}

static void probe_atomics(void)
{
	int fd = load(BPF_PROG_TYPE_SOCKET_FILTER, atomic, sizeof(atomic) / sizeof(*atomic));

	if (fd < 0)
		lacks("BPF compare-and-exchange");
	else
		close(fd);
}

static void probe_map(void)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "bpvs_probe", sizeof(__u32), 8, 1, &opts);

	if (fd < 0)
		lacks("BPF arrays that can be mapped into memory");
	else
		close(fd);
}

int main(void)
{
	libbpf_set_print(NULL);
	probe_jit();
	if (complaints)
		return 1;
	probe_atomics();
	probe_map();
	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++) {
		if (libbpf_probe_bpf_prog_type(programs[i].type, NULL) != 1)
			lacks(programs[i].name);
	}
	for (size_t i = 0; i < sizeof(helpers) / sizeof(*helpers); i++) {
		if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, helpers[i].id, NULL) != 1)
			lacks(helpers[i].name);
	}
	return complaints ? 1 : 0;
}
