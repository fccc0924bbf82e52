# A base out of what base.sh made, for who may pull none: it stands where `base-image` of deploy/versions.toml would.
# Context: a directory with base-amd64.tar and base-arm64.tar.
FROM scratch
ARG TARGETARCH
ADD base-${TARGETARCH}.tar /
