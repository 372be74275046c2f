# intentd for nodes without a GPU.
#
#     docker build -t intentd .
#     docker run --rm -p 8080:8080 intentd
#
# Dockerfile.cuda builds the image for NVIDIA GPUs.
ARG RUST=1.95

FROM rust:${RUST}-bookworm AS build
# What librdkafka is compiled with. Debian keeps only the newest version of a package, so none is named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libssl-dev make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /build
COPY . .
# Cargo goes by the times of sources, and those of an archive may be older than what the cache holds. The other Dockerfile
# builds on another system: a cache of its own. mimalloc contains the time at which it is compiled: always the same one.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=intentd-cpu,target=/build/target \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && SOURCE_DATE_EPOCH=0 cargo build --release --locked --package intentd --no-default-features \
        --features kafka,bench,scaler,swagger-ui \
    && mkdir -p /image/bin \
    && cp target/release/intentd /image/bin/ \
    && strip /image/bin/intentd

FROM debian:bookworm-slim
# What librdkafka is linked with, and the authorities that brokers and sinks are checked by.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=build /image/bin /opt/intentd/bin
ENV PATH=/opt/intentd/bin:${PATH} \
    PORT=8080
USER 65532:65532
WORKDIR /
EXPOSE 8080 9100
# No shell takes part, so that a signal reaches the program itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["/opt/intentd/bin/intentd", "health"]
ENTRYPOINT ["/opt/intentd/bin/intentd"]
