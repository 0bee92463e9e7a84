package lab

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is one request as kube-apiserver recorded it when it was answered.
type Request struct {
	Time        time.Time
	User        string // for example system:serviceaccount:kubetide-system:kubetide
	Pod, PodUID string // whose token the user showed; empty if that is of no pod
	UserAgent   string
	Verb        string // get, list, watch, create, update, patch, delete, deletecollection
	Group       string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	URI         string
	Code        int
	// Denied says that the user has no right to it, as opposed to a refusal for another reason.
	Denied bool
}

// Writes tells whether the request asks for a change of an object.
func (r Request) Writes() bool {
	switch r.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return true
	}
	return false
}

func (l *Lab) auditLog() string { return filepath.Join(l.logDir(), "audit.jsonl") }

// Audit yields every request answered at since or later, in the order of the answers. It ends at the end of the log, where a
// request may appear a moment after its caller has the answer; a watch appears when it ends.
func (l *Lab) Audit(since time.Time) iter.Seq2[Request, error] {
	return l.audited.read(l.auditLog(), since)
}

// audited is what is known of the audit log from reading it, so that who wants to know the last seconds need not read hours.
type audited struct {
	mu    sync.Mutex
	file  os.FileInfo // what places are in; kube-apiserver would begin another at ten gigabytes
	known []place     // in their order, a mebibyte or more from each to the next
}

// place is the beginning of a line.
type place struct {
	offset int64
	latest time.Time // of all answers before it: they are nearly in order, and only nearly
}

const betweenPlaces = 1 << 20

// before returns the last known place before which everything is older than since: to read from there is to read all.
func (a *audited) before(file os.FileInfo, since time.Time) place {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil || !os.SameFile(a.file, file) {
		a.file, a.known = file, nil
	}
	for _, p := range slices.Backward(a.known) {
		if p.latest.Before(since) {
			return p
		}
	}
	return place{}
}

func (a *audited) learn(file os.FileInfo, p place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.known); os.SameFile(a.file, file) && (n == 0 || p.offset >= a.known[n-1].offset+betweenPlaces) {
		a.known = append(a.known, p)
	}
}

func (a *audited) read(name string, since time.Time) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		if err := a.each(name, since, func(r Request) bool { return yield(r, nil) }); err != nil {
			yield(Request{}, fmt.Errorf("read the audit log: %w", err))
		}
	}
}

// each is read until more says no.
func (a *audited) each(name string, since time.Time, more func(Request) bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	file, err := f.Stat()
	if err != nil {
		return err
	}
	at := a.before(file, since)
	if _, err := f.Seek(at.offset, io.SeekStart); err != nil {
		return err
	}
	next := at.offset + betweenPlaces
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20)
	line := int64(0) // the length of the last one, with its end
	scanner.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		advance, token, err := bufio.ScanLines(data, atEOF)
		line = int64(advance)
		return advance, token, err
	})
	for scanner.Scan() {
		// The line before this one is whole. The last one need not be, and no place is after it.
		if at.offset >= next {
			a.learn(file, at)
			next = at.offset + betweenPlaces
		}
		at.offset += line
		answered, ok := answeredAt(scanner.Bytes())
		if !ok {
			continue // the last line may still be half written
		}
		if answered.After(at.latest) {
			at.latest = answered
		}
		if answered.Before(since) {
			continue
		}
		request, err := requestOf(scanner.Bytes())
		if err != nil {
			continue
		}
		if !more(request) {
			return nil
		}
	}
	return scanner.Err()
}

// answeredAt finds the time of an event that need not be decoded if it is too old. Within a string, no quotes stand alone: this is the field.
func answeredAt(event []byte) (time.Time, bool) {
	_, rest, _ := bytes.Cut(event, []byte(`"stageTimestamp":"`))
	text, _, whole := bytes.Cut(rest, []byte(`"`))
	if !whole {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(text))
	return at, err == nil
}

func requestOf(line []byte) (Request, error) {
	var event struct {
		StageTimestamp time.Time
		User           struct {
			Username string
			Extra    map[string][]string
		}
		ImpersonatedUser            *struct{ Username string }
		UserAgent, Verb, RequestURI string
		ObjectRef                   struct{ APIGroup, Resource, Subresource, Namespace, Name string }
		ResponseStatus              struct{ Code int }
		Annotations                 map[string]string
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return Request{}, err
	}
	request := Request{
		Time: event.StageTimestamp, User: event.User.Username, UserAgent: event.UserAgent, Verb: event.Verb,
		Group: event.ObjectRef.APIGroup, Resource: event.ObjectRef.Resource, Subresource: event.ObjectRef.Subresource,
		Namespace: event.ObjectRef.Namespace, Name: event.ObjectRef.Name, URI: event.RequestURI, Code: event.ResponseStatus.Code,
		Denied: event.Annotations["authorization.k8s.io/decision"] == "forbid",
		Pod:    strings.Join(event.User.Extra["authentication.kubernetes.io/pod-name"], ""),
		PodUID: strings.Join(event.User.Extra["authentication.kubernetes.io/pod-uid"], ""),
	}
	if event.ImpersonatedUser != nil {
		request.User = event.ImpersonatedUser.Username
	}
	return request, nil
}
