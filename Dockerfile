# A static binary, nothing else: no shell, no package manager, no user that could become root.
#   docker build -t patgate .
#   docker run --read-only --cap-drop ALL -p 8443:8443 \
#     -v /etc/patgate:/etc/patgate:ro -v patgate-state:/var/lib/patgate patgate
# The configuration's audit folder is on the volume: [audit] folder = "/var/lib/patgate/audit"

FROM rust:1.95-alpine AS build
# The C compiler is for aws-lc (TLS) and mimalloc.
RUN apk add --no-cache build-base cmake perl linux-headers
# The toolchain is the image's own: rust-toolchain.toml would fetch another.
ENV RUSTUP_TOOLCHAIN=1.95
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin patgate \
 && mkdir -p /out/var/lib/patgate \
 && cp target/release/patgate /out/patgate \
 && if ldd /out/patgate 2>/dev/null | grep -q '=>'; then echo 'patgate is not static' >&2; exit 1; fi

FROM scratch
COPY --from=build /out/patgate /patgate
# Owned by the user below, so that a new volume is writable.
COPY --from=build --chown=65532:65532 /out/var/lib/patgate /var/lib/patgate
USER 65532:65532
VOLUME ["/var/lib/patgate"]
EXPOSE 8443
STOPSIGNAL SIGTERM
ENTRYPOINT ["/patgate"]
CMD ["serve", "--config", "/etc/patgate/patgate.toml"]
