# Images of the engine and the operator:
#
#   docker build --target engine -t streamjob/engine .
#   docker build --target operator -t streamjob/operator .
#
# Both hold one binary and what it needs from Debian (e2e/images/rootfs.sh), no shell. Tests build the same images without a
# container engine: e2e/images/build.sh.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --release -p streamjob-cli -p streamjob-operator \
    && for name in engine operator; do strip -o /usr/bin/streamjob-$name target/release/streamjob-$name || exit 1; done

# The same Debian as above: binaries and their libraries have to fit.
FROM build AS rootfs
RUN apt-get update -qq \
    && e2e/images/rootfs.sh make /rootfs \
    && e2e/images/rootfs.sh check /rootfs /usr/bin/streamjob-engine /usr/bin/streamjob-operator

FROM scratch AS base
COPY --from=rootfs /rootfs/ /
ENV PATH=/usr/bin:/bin
WORKDIR /
USER 65532:65532

FROM base AS engine
COPY --from=build /usr/bin/streamjob-engine /usr/bin/streamjob-engine
ENTRYPOINT ["/usr/bin/streamjob-engine"]

FROM base AS operator
COPY --from=build /usr/bin/streamjob-operator /usr/bin/streamjob-operator
ENTRYPOINT ["/usr/bin/streamjob-operator"]
