# The image for both architectures, for people with Docker's buildx. From the top of the repository, after `make dist`:
#
#   env $(deploy/docker/settings.sh) docker buildx bake -f deploy/docker/docker-bake.hcl            into a local archive
#   env $(deploy/docker/settings.sh) IMAGE=REGISTRY/ddc docker buildx bake -f deploy/docker/docker-bake.hcl push
#
# settings.sh prints every variable below: nothing is written down twice.

variable "IMAGE" { default = "ddc" }
variable "VERSION" {}
variable "REVISION" {}
variable "CREATED" {}
variable "SOURCE" {}
variable "SOURCE_DATE_EPOCH" {}
variable "BASE" {}

group "default" {
  targets = ["archive"]
}

target "image" {
  dockerfile = "deploy/docker/Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  args = {
    BASE              = BASE
    VERSION           = VERSION
    REVISION          = REVISION
    CREATED           = CREATED
    SOURCE            = SOURCE
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
  tags = ["${IMAGE}:${VERSION}"]
}

# An OCI archive with both: to carry into a site that reaches no registry.
target "archive" {
  inherits = ["image"]
  output   = ["type=oci,dest=dist/ddc-image.tar"]
}

target "push" {
  inherits = ["image"]
  output   = ["type=registry"]
}
