# One static binary, run by nobody, on an empty file system.
#
#   docker build -t perenne .
#   docker run --rm -v perenne:/var/lib/perenne perenne init --dir /var/lib/perenne --producer c_x901 …
#   docker run -d -v perenne:/var/lib/perenne -p 8420:8420 perenne
#
# Without tls in its configuration the daemon listens on the loopback only, which nobody outside the
# container reaches: see docs/operations.md.

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -o /out/perenne ./cmd/perenne
# An empty directory and a user, since the final image has no shell to make them.
RUN mkdir -m 0700 -p /out/state \
 && printf 'perenne:x:65532:65532:Perenne:/var/lib/perenne:/sbin/nologin\n' > /out/passwd \
 && printf 'perenne:x:65532:\n' > /out/group

FROM scratch
LABEL org.opencontainers.image.title="Perenne" \
      org.opencontainers.image.description="Conservazione digitale: a document in, a proof out" \
      org.opencontainers.image.source="https://github.com/marchesud/perenne" \
      org.opencontainers.image.licenses="EUPL-1.2"
COPY --from=build /out/passwd /out/group /etc/
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/perenne /usr/local/bin/perenne
COPY --from=build /src/LICENSE /usr/share/doc/perenne/LICENSE
COPY --from=build --chown=65532:65532 /out/state /var/lib/perenne
# The image has no /tmp: whatever asks for one gets the volume.
ENV TMPDIR=/var/lib/perenne
USER 65532:65532
VOLUME /var/lib/perenne
EXPOSE 8420
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/perenne", "status", "--dir", "/var/lib/perenne"]
ENTRYPOINT ["/usr/local/bin/perenne"]
CMD ["serve", "--dir", "/var/lib/perenne"]
