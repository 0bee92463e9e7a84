# docker build -t kubetide/kubetide .
# The image holds one static program, certificates of public CAs, and nothing to run besides.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags="-s -w" -o /kubetide ./cmd/kubetide

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /kubetide /kubetide
USER 65532:65532
ENTRYPOINT ["/kubetide"]
CMD ["server"]
