# syntax=docker/dockerfile:1
# fedplug as a container that runs as a user without rights:
#
#   docker build -t fedplug .                            CPU: 0.6 GB
#   docker build -t fedplug:cuda --build-arg CUDA=1 .    with CUDA 13: 6 GB; run with --gpus all
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" fedplug run experiment.toml
#
# The folder with experiments and data is mounted at /work, where runs go too.
ARG RUST=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST}-slim-${DEBIAN} AS build
ARG CUDA=
# What `make setup` and the C++ of the plugin `amplify` need.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes g++ make python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make install PREFIX=/usr/local DESTDIR=/installed FEDPLUG_CUDA="${CUDA}"

FROM debian:${DEBIAN}-slim
# libtorch's threads, and the certificates for models from the hub and for a SuperLink.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home fedplug \
    && install --directory --owner fedplug /work
COPY --from=build /installed/usr/local /usr/local
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /work
# `fedplug` ends in good order on the first signal, and leaves a checkpoint.
STOPSIGNAL SIGTERM
ENTRYPOINT ["fedplug"]
CMD ["--help"]
