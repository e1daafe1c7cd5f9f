# bpvs in the place of kube-proxy's image: /usr/local/bin/kube-proxy is bpvsd. For linux/amd64 and linux/arm64:
#
#     docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/bpvs:VERSION --push .
#
# The bases are pinned by the digest of their index, which has both; the packages of npm, Node among them, by
# package-lock.json. BPF programs are built for the target: they read the processor's headers.

FROM node:24.20.0-bookworm-slim@sha256:ba849c60be29959425b8734d57b8b4b7d56f98edd9504c9af091d5281095a71e AS build
WORKDIR /src
RUN apt-get update -q \
 && apt-get install -qy --no-install-recommends clang-19 gcc libc6-dev libbpf-dev libelf-dev zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
COPY . .
# What is left of Node's symbols only a debugger would miss: a seventh of it.
RUN node tools/setup.mjs build && node tools/image.mjs /image && strip /image/opt/bpvs/build/bin/node

FROM debian:bookworm-slim@sha256:60eac759739651111db372c07be67863818726f754804b8707c90979bda511df
# libbpf, with libelf and zlib, is what libbpvs.so needs; libstdc++ and libatomic what Node needs.
RUN apt-get update -q \
 && apt-get install -qy --no-install-recommends libbpf1 libstdc++6 libatomic1 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /image/ /
# Every command must start; Node keeps what it compiled for the next start.
RUN kube-proxy --version && bpvsd --help >/dev/null && bpvsadm --version && ipvsadm --version
LABEL org.opencontainers.image.title="bpvs" \
      org.opencontainers.image.description="IPVS-compatible layer-4 load balancer in eBPF, in the place of kube-proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
# As the field's DaemonSets for kube-proxy name it; without a command it is kube-proxy, in a pod.
CMD ["/usr/local/bin/kube-proxy"]
