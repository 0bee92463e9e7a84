package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// quiet is after how long without a line a pipe gets one that says what is going on.
const quiet = 8 * time.Second

// screen prints what happens, and below it, on a terminal, a line that says what is going on and is redrawn.
type screen struct {
	out      io.Writer
	terminal bool
	columns  func() int
	stop     chan struct{}

	mu     sync.Mutex
	live   string
	since  time.Time // when live began to be about something
	drawn  bool      // whether the line is there
	spoken time.Time // when something was last printed
}

func newScreen(out *os.File) *screen {
	s := &screen{
		out: out, terminal: term.IsTerminal(int(out.Fd())), stop: make(chan struct{}), spoken: time.Now(),
		columns: func() int {
			if n, _, err := term.GetSize(int(out.Fd())); err == nil && n > 0 {
				return n
			}
			return 80
		},
	}
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case now := <-tick.C:
				s.tick(now)
			}
		}
	}()
	return s
}

func (s *screen) close() { close(s.stop) }

// say prints what happened, with the time.
func (s *screen) say(format string, args ...any) {
	now := time.Now()
	s.print(fmt.Sprintf("%s  %s\n", now.Format(time.TimeOnly), fmt.Sprintf(format, args...)))
}

// print prints text as it is.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprint(s.out, text)
	s.spoken = time.Now()
	s.draw(s.spoken)
}

// doing says what is going on; nothing if the text is empty.
func (s *screen) doing(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	if s.live == "" {
		s.since = time.Now()
	}
	s.live = strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	s.draw(time.Now())
}

func (s *screen) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal && s.live != "" && now.Sub(s.spoken) >= quiet {
		fmt.Fprintf(s.out, "%s  ... %s\n", now.Format(time.TimeOnly), s.live)
		s.spoken = now
	}
	s.clear()
	s.draw(now)
}

// draw puts the line there, under the lock. A line that is broken could not be taken away.
func (s *screen) draw(now time.Time) {
	if !s.terminal || s.live == "" {
		return
	}
	fmt.Fprint(s.out, cut(fmt.Sprintf("%8s  ... %s", now.Sub(s.since).Round(time.Second), s.live), s.columns()-1))
	s.drawn = true
}

// clear takes it away, under the lock.
func (s *screen) clear() {
	if s.drawn {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.drawn = false
	}
}

// cut shortens text to that many characters.
func cut(text string, columns int) string {
	if utf8.RuneCountInString(text) <= columns {
		return text
	}
	return string([]rune(text)[:max(0, columns)])
}
