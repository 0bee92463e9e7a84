package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// DeniedError says that nothing was sent, because it must not be.
type DeniedError struct {
	// What was refused, such as "the address 127.0.0.1".
	What string
	// Why it was.
	Why string
	// Allow is what to do if it is right nevertheless, with the name of the setting; empty if nothing can be done.
	Allow string
}

func (e *DeniedError) Error() string {
	text := e.What + " is refused: " + e.Why
	if e.Allow != "" {
		text += "; " + e.Allow
	}
	return text
}

// StatusError is an answer whose status says that it is not what was asked for.
type StatusError struct {
	Status int
	// Location names the host that a redirect leads to.
	Location string
}

func (e *StatusError) Error() string {
	if e.Location != "" {
		return fmt.Sprintf("status %d redirects to %s, and redirects are not followed", e.Status, e.Location)
	}
	return fmt.Sprintf("status %d, not 200", e.Status)
}

func redirects(status int) bool { return status >= 300 && status < 400 }

func statusError(r *http.Response) error {
	e := &StatusError{Status: r.StatusCode}
	if redirects(r.StatusCode) {
		e.Location = "an unreadable location"
		if location, err := r.Location(); err == nil {
			e.Location = fmt.Sprintf("host %.100q", location.Host)
		}
	}
	return e
}

// TooLargeError says that an answer has more bytes than are read.
type TooLargeError struct{ Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the answer is larger than %d bytes", e.Limit)
}

// BudgetError says that a request was not sent in its time, because the namespace had too many others.
type BudgetError struct {
	Namespace string
	// Limit is what is used up, in words.
	Limit string
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("it was not sent in time: the namespace %q has used up its %s", e.Namespace, e.Limit)
}

// BrokenError is an answer, or a connection, that does not keep to HTTP.
type BrokenError struct{ Err error }

func (e *BrokenError) Error() string { return e.Err.Error() }
func (e *BrokenError) Unwrap() error { return e.Err }

// timeoutError says that the request's own time was over.
type timeoutError time.Duration

func (e timeoutError) Error() string { return "no complete answer within " + time.Duration(e).String() }

// Timeout tells it apart as net.Error does.
func (e timeoutError) Timeout() bool { return true }

// Kinds are what Kind returns.
var Kinds = []string{"ok", "denied", "budget", "resolve", "connect", "tls", "timeout", "canceled", "status", "too_large", "broken", "other"}

// Kind puts an error into one of the Kinds: ok for nil, other for what this package knows nothing of.
func Kind(err error) string {
	var (
		denied     *DeniedError
		budget     *BudgetError
		room       *RoomError
		status     *StatusError
		tooLarge   *TooLargeError
		broken     *BrokenError
		dns        *net.DNSError
		op         *net.OpError
		untrusted  *tls.CertificateVerificationError
		noTLS      tls.RecordHeaderError
		alert      tls.AlertError
		invalid    x509.CertificateInvalidError
		authority  x509.UnknownAuthorityError
		timeouting interface{ Timeout() bool }
	)
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &denied):
		return "denied"
	case errors.As(err, &budget), errors.As(err, &room):
		return "budget"
	case errors.As(err, &status):
		return "status"
	case errors.As(err, &tooLarge):
		return "too_large"
	case errors.As(err, &untrusted), errors.As(err, &noTLS), errors.As(err, &alert), errors.As(err, &invalid), errors.As(err, &authority):
		return "tls"
	case errors.As(err, &dns):
		return "resolve"
	case errors.As(err, &op) && op.Op == "dial":
		return "connect"
	case errors.As(err, &timeouting) && timeouting.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &broken):
		return "broken"
	}
	return "other"
}

// WithoutURL takes away what net/http's client puts before an error: the URL may hold a secret. It serves those who use
// RoundTripper through such a client.
func WithoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// plain returns the error that a request ended with as it should be told: what was denied without the words of the dialer,
// and the request's own timeout by name. All else that is not known is broken.
func plain(ctx context.Context, err error) error {
	var denied *DeniedError
	if errors.As(err, &denied) {
		return denied
	}
	var late lateError
	if errors.As(err, &late) {
		return late
	}
	if c := context.Cause(ctx); c != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return c
	}
	if Kind(err) == "other" {
		return &BrokenError{err}
	}
	return err
}
