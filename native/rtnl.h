/* SPDX-License-Identifier: Apache-2.0 */
/* What rtnl.c has for others that speak netlink. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <linux/netlink.h>
#include <linux/types.h>

/* What is asked for: messages of a type, each read into a record. */
struct dump {
	void (*read)(void *record, const struct nlmsghdr *msg);
	char *out;
	size_t size; /* of a record */
	uint32_t room;
	__u16 type;
};

/* A socket of the calling thread's namespace. */
int rtnl_open(__u32 groups);
/* Sends a request on a socket of its own; returns the number of records. */
int rtnl_dump(const void *request, size_t size, const struct dump *dump);
/* Copies the text of an attribute (its data and length) and ends it by a NUL. */
void rtnl_text(char *out, size_t room, const void *data, size_t length);
