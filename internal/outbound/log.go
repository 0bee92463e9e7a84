package outbound

import (
	"io"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// StandardLog is for log.SetOutput. net/http reports there, and only there, servers that speak out of turn, with kilobytes of
// what they said, as often as they do it. The writer cuts lines to 200 bytes and gives no more than one a second to emit.
func StandardLog(emit func(line string)) io.Writer {
	return standardLog{emit, rate.NewLimiter(rate.Every(time.Second), 5)}
}

type standardLog struct {
	emit  func(string)
	limit *rate.Limiter
}

// Write implements io.Writer. It never fails.
func (l standardLog) Write(p []byte) (int, error) {
	if l.limit.Allow() {
		line := strings.TrimRight(string(p[:min(len(p), 200)]), "\n")
		l.emit(strings.ToValidUTF8(line, "?"))
	}
	return len(p), nil
}
