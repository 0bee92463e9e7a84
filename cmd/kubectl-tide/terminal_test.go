//go:build linux

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// asItself makes this program the plugin.
const asItself = "KUBECTL_TIDE_TEST_AS_ITSELF"

func TestMain(m *testing.M) {
	if os.Getenv(asItself) != "" {
		main()
	}
	os.Exit(m.Run())
}

// session runs a program, says its exit code, and stays until it is told to go: with the end of a session goes what its terminal was set to.
const session = `trap : INT; "$@"; echo $? >&3; exec >&-; read rest <&4`

// terminal is one with the plugin on it.
type terminal struct {
	t             *testing.T
	master, slave *os.File
	cmd           *exec.Cmd
	code, leave   *os.File
	before        unix.Termios

	mu      sync.Mutex
	picture *picture
	shown   chan struct{} // something was
	broken  error
	drained chan struct{}
}

// onATerminal starts the plugin on a terminal of that size. Its output goes there if out is nil.
func onATerminal(t *testing.T, kubeconfig, args string, out *os.File, width, height int) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, master: os.NewFile(uintptr(fd), "/dev/ptmx"), picture: newPicture(width, height), shown: make(chan struct{}, 1), drained: make(chan struct{})}
	t.Cleanup(func() { x.master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if x.slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.slave.Close() })
	x.resize(width, height)
	x.before = x.settings()

	pipe := func() (reader, writer *os.File) {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { reader.Close(); writer.Close() })
		return reader, writer
	}
	code, says := pipe()
	left, leave := pipe()
	x.code, x.leave = code, leave
	x.cmd = exec.CommandContext(t.Context(), "sh", append([]string{"-c", session, "sh", os.Args[0]}, strings.Fields(args)...)...)
	x.cmd.Env = []string{asItself + "=1", "KUBECONFIG=" + kubeconfig, "TZ=UTC", "TERM=xterm"}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = x.slave, cmp.Or(out, x.slave), x.slave
	x.cmd.ExtraFiles = []*os.File{says, left}
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	says.Close()
	go x.read()
	return x
}

func (x *terminal) read() {
	defer close(x.drained)
	chunk := make([]byte, 4096)
	for {
		n, err := x.master.Read(chunk)
		x.mu.Lock()
		if e := x.picture.write(chunk[:n]); x.broken == nil {
			x.broken = e
		}
		x.mu.Unlock()
		select {
		case x.shown <- struct{}{}:
		default: // somebody was told already and has not looked yet
		}
		if err != nil { // nobody has the other end any more
			return
		}
	}
}

func (x *terminal) settings() unix.Termios {
	x.t.Helper()
	s, err := unix.IoctlGetTermios(int(x.slave.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return *s
}

// resize is what a terminal does whose window gets another size. The kernel sends SIGWINCH.
func (x *terminal) resize(width, height int) {
	x.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.picture.resize(width, height)
	if err := unix.IoctlSetWinsize(int(x.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(width), Row: uint16(height)}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// shows waits until check is content with what is to be seen.
func (x *terminal) shows(check func(*picture) error) {
	x.t.Helper()
	late := time.After(20 * time.Second)
	for {
		x.mu.Lock()
		err := errors.Join(x.broken, check(x.picture))
		x.mu.Unlock()
		if err == nil {
			return
		}
		select {
		case <-x.shown:
		case <-late:
			x.t.Fatalf("%v; the screen:\n%s", err, x.picture)
		}
	}
}

// ends waits for the end of the plugin, and sees that it leaves the terminal as it was.
func (x *terminal) ends(code int) {
	x.t.Helper()
	if err := x.code.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		x.t.Fatal(err)
	}
	line, err := bufio.NewReader(x.code).ReadString('\n')
	if err != nil {
		x.t.Fatalf("it does not end: %v", err)
	}
	if want := fmt.Sprintln(code); line != want {
		x.t.Errorf("exit code %s, want %s", line, want)
	}
	if diff := gocmp.Diff(x.before, x.settings()); diff != "" {
		x.t.Errorf("the terminal's settings (-before +after):\n%s", diff)
	}
	x.leave.Close()
	_ = x.cmd.Wait() // its code tells nothing
	x.slave.Close()
	<-x.drained
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken != nil {
		x.t.Error(x.broken)
	}
	if x.picture.colour != "" {
		x.t.Errorf("what comes next has the colour %q", x.picture.colour)
	}
}

// picture is what a terminal shows, as far as it understands what the plugin sends: text, colours, and the clearing of all.
type picture struct {
	width, height int
	cells         [][]rune
	colours       []string // of the first cell of each line
	row, column   int
	colour        string
	// wrapped counts the lines that were too long, and frames how often all was cleared, both since the beginning.
	wrapped, frames int
	rest            []byte // the begin of a rune or a sequence
}

func newPicture(width, height int) *picture {
	p := &picture{}
	p.resize(width, height)
	return p
}

// resize clears; terminals differ in what they keep.
func (p *picture) resize(width, height int) {
	p.width, p.height = width, height
	p.clear()
}

func (p *picture) clear() {
	p.cells, p.colours, p.row, p.column = make([][]rune, p.height), make([]string, p.height), 0, 0
}

func (p *picture) write(text []byte) error {
	text = append(p.rest, text...)
	for len(text) > 0 {
		if text[0] == '\x1b' {
			end := bytes.IndexFunc(text, func(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' })
			if end < 0 {
				break
			}
			if err := p.do(string(text[:end+1])); err != nil {
				return err
			}
			text = text[end+1:]
			continue
		}
		if !utf8.FullRune(text) {
			break
		}
		r, size := utf8.DecodeRune(text)
		if err := p.put(r); err != nil {
			return err
		}
		text = text[size:]
	}
	p.rest = bytes.Clone(text)
	return nil
}

func (p *picture) do(sequence string) error {
	switch sequence {
	case "\x1b[H":
		p.row, p.column = 0, 0
	case "\x1b[2J":
		row, column := p.row, p.column
		p.clear()
		p.row, p.column = row, column
		p.frames++
	case "\x1b[31m", "\x1b[33m":
		p.colour = sequence
	case "\x1b[0m":
		p.colour = ""
	default:
		return fmt.Errorf("the terminal is sent %q", sequence)
	}
	return nil
}

func (p *picture) put(r rune) error {
	switch {
	case r == '\r':
		p.column = 0
		return nil
	case r == '\n':
		p.down()
		return nil
	case r < ' ':
		return fmt.Errorf("the terminal is sent %q", r)
	}
	if p.column == p.width {
		p.wrapped++
		p.column = 0
		p.down()
	}
	line := &p.cells[p.row]
	for len(*line) <= p.column {
		*line = append(*line, ' ')
	}
	(*line)[p.column] = r
	if p.column == 0 {
		p.colours[p.row] = p.colour
	}
	p.column++
	return nil
}

func (p *picture) down() {
	if p.row++; p.row == p.height {
		p.cells, p.colours, p.row = append(p.cells[1:], nil), append(p.colours[1:], ""), p.row-1
	}
}

// String is the text, with the colours before the lines that begin with one.
func (p *picture) String() string {
	var b strings.Builder
	for i, line := range p.cells {
		colour := map[string]string{"\x1b[31m": "[red] ", "\x1b[33m": "[yellow] "}[p.colours[i]]
		b.WriteString(colour + strings.TrimRight(string(line), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func is(want string) func(*picture) error {
	return func(p *picture) error {
		if diff := gocmp.Diff(want, p.String()); diff != "" {
			return fmt.Errorf("it shows (-want +got):\n%s", diff)
		}
		return nil
	}
}

// showsOnce wants each text in one line and no more.
func showsOnce(texts ...string) func(*picture) error {
	return func(p *picture) error {
		for _, text := range texts {
			if n := strings.Count(p.String(), text); n != 1 {
				return fmt.Errorf("%q is to be seen %d times", text, n)
			}
		}
		return nil
	}
}

func TestTopIsDrawnAnewOnATerminal(t *testing.T) {
	c := newTopCluster(t)
	c.change(func() { c.hpas = []*autoscalingv2.HorizontalPodAutoscaler{topHPA("shop", "web", 4, 70)} })
	x := onATerminal(t, c.kubeconfig, "top --watch --interval 1s", nil, 80, 10)
	x.shows(is(`NAME       TARGET           DEMAND  REPLICAS  MIN  MAX  HEADROOM  TO MAX
[yellow] ihpa/cart  Deployment/cart  9       4 -> 9    2    10   10 %      -
hpa/web    Deployment/web   5.6     4 -> 6    1    10   40 %      -
`))
	c.change(func() { c.ihpas = []*kapacity.IntelligentHorizontalPodAutoscaler{topIHPA("shop", "cart", 10, 12)} })
	x.shows(is(`NAME       TARGET           DEMAND  REPLICAS  MIN  MAX  HEADROOM  TO MAX
[red] ihpa/cart  Deployment/cart  12      10        2    10   0 %       now
hpa/web    Deployment/web   5.6     4 -> 6    1    10   40 %      -
`))
	c.change(func() { c.ihpas = nil })
	x.shows(is(`NAME     TARGET          DEMAND  REPLICAS  MIN  MAX  HEADROOM  TO MAX
hpa/web  Deployment/web  5.6     4 -> 6    1    10   40 %      -
`))
	x.press("\x03")
	x.ends(0)
}

func TestTopKeepsWithinATerminalThatGetsSmaller(t *testing.T) {
	c := newTopCluster(t)
	c.change(func() {
		c.ihpas, c.hpas = nil, nil
		for i := range 9 {
			c.hpas = append(c.hpas, topHPA("shop", fmt.Sprintf("web-%d", i), 4, 70))
		}
	})
	x := onATerminal(t, c.kubeconfig, "top --watch --interval 1s", nil, 80, 24)
	x.shows(showsOnce("NAME", "hpa/web-0", "hpa/web-8", "TO MAX"))
	x.resize(30, 6)
	x.shows(is(`NAME       TARGET            D
hpa/web-0  Deployment/web-0  5
hpa/web-1  Deployment/web-1  5
hpa/web-2  Deployment/web-2  5
... and 6 more
`))
	x.mu.Lock()
	if x.picture.wrapped > 0 {
		t.Errorf("%d lines were too long", x.picture.wrapped)
	}
	x.mu.Unlock()
	x.resize(80, 24)
	x.shows(showsOnce("NAME", "hpa/web-0", "hpa/web-8", "TO MAX"))
	x.press("\x03")
	x.ends(0)
}

func TestAStackSetIsDrawnAnewOnATerminal(t *testing.T) {
	s := newShop(t, cart(map[string]float64{"v1": 100, "v2": 0}))
	x := onATerminal(t, s.kubeconfig, "get stackset cart --watch", nil, 120, 24)
	x.shows(showsOnce("StackSet shop/cart", "├─ cart-v1  100 %    100 %", "└─ cart-v2  0 %      0 %"))
	stack := s.lists["stacks"][1].(*zalando.Stack).DeepCopy()
	stack.ResourceVersion, stack.Status.ActualTrafficWeight = "12", 50
	s.watcher("stacks") <- event{"MODIFIED", stack}
	x.shows(showsOnce("StackSet shop/cart", "├─ cart-v1  100 %    100 %", "└─ cart-v2  0 %      50 %"))
	x.press("\x03")
	x.ends(0)
}

func TestAWatchThatFailsLeavesTheTerminal(t *testing.T) {
	s := newShop(t, cart(map[string]float64{"v1": 100}))
	x := onATerminal(t, s.kubeconfig, "get stackset cart --watch", nil, 120, 24)
	x.shows(showsOnce("└─ cart-v1"))
	s.watcher("stacksets") <- event{"DELETED", s.set()}
	x.shows(showsOnce("└─ cart-v1", "kubectl tide: StackSet shop/cart is gone"))
	x.ends(1)
}

func TestMetricsAreDrawnAnewOnATerminal(t *testing.T) {
	c := newCluster(t, metricsOfCart(t))
	x := onATerminal(t, c.kubeconfig, "metrics watch hpa/cart --interval 100ms", nil, 160, 24)
	x.shows(func(p *picture) error {
		if p.frames < 3 {
			return fmt.Errorf("%d frames", p.frames)
		}
		return showsOnce("METRIC", "queue-length  External", "requests      Pods", "rps           Object", "connection refused [2J", "metric cpu is not collected")(p)
	})
	x.press("\x03")
	x.ends(0)
}

// As in kubectl tide top | less: there is a terminal, and the output goes elsewhere.
func TestNothingIsDrawnOnAPipe(t *testing.T) {
	for args, c := range map[string]struct {
		shows  string
		goesOn bool
	}{
		"top":                            {"hpa/web", false},
		"top ihpa/cart -o json":          {`"kind": "IHPA"`, false},
		"top --watch --interval 1s":      {"hpa/web", true},
		"get stackset cart --watch":      {"cart-v2", true},
		"metrics watch --interval 100ms": {"rps", true},
	} {
		t.Run(args, func(t *testing.T) {
			var kubeconfig string
			switch {
			case strings.HasPrefix(args, "top"):
				kubeconfig = newTopCluster(t).kubeconfig
			case strings.HasPrefix(args, "get"):
				kubeconfig = newShop(t, cart(map[string]float64{"v1": 100, "v2": 0})).kubeconfig
			default:
				kubeconfig = newCluster(t, metricsOfCart(t)).kubeconfig
			}
			out, in, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			x := onATerminal(t, kubeconfig, args, in, 80, 24)
			in.Close()
			if err := out.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			var text []byte
			for chunk := make([]byte, 4096); err == nil; {
				var n int
				n, err = out.Read(chunk)
				text = append(text, chunk[:n]...)
				if c.goesOn && bytes.Contains(text, []byte(c.shows)) {
					c.goesOn = false
					x.press("\x03")
				}
			}
			if !errors.Is(err, io.EOF) || bytes.ContainsRune(text, '\x1b') || !bytes.Contains(text, []byte(c.shows)) {
				t.Errorf("%v: %q", err, text)
			}
			x.ends(0)
		})
	}
}

func TestAPicture(t *testing.T) {
	for name, c := range map[string]struct {
		width, height int
		text          string
		want          string
		wrapped       int
	}{
		"lines":              {10, 3, "ab\r\ncd\r\n", "ab\ncd\n", 0},
		"over what was":      {10, 3, "abcd\rxy", "xycd\n", 0},
		"cleared":            {10, 3, "abcd\r\nef\x1b[H\x1b[2Jxy", "xy\n", 0},
		"home alone":         {10, 3, "abcd\r\nef\x1b[Hxy", "xycd\nef\n", 0},
		"a line that fits":   {4, 3, "abcd\r\nef", "abcd\nef\n", 0},
		"one that is longer": {4, 3, "abcdef", "abcd\nef\n", 1},
		"more than it holds": {4, 2, "a\r\nb\r\nc", "b\nc\n", 0},
		"colours":            {9, 3, "\x1b[31mab\x1b[0m\r\n\x1b[33mc\x1b[0m\r\nd", "[red] ab\n[yellow] c\nd\n", 0},
		"runes":              {9, 3, "├─ a", "├─ a\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			for step := range 3 { // in pieces that cut runes and sequences
				p := newPicture(c.width, c.height)
				for rest := []byte(c.text); len(rest) > 0; {
					n := min(len(rest), step+1)
					if err := p.write(rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if p.String() != c.want || p.wrapped != c.wrapped {
					t.Errorf("%q, %d wrapped", p, p.wrapped)
				}
			}
		})
	}
	if err := newPicture(9, 3).write([]byte("\x1b[?25l")); err == nil {
		t.Error("a sequence that it does not know passes")
	}
}
