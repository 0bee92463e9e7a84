package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/kubetide/kubetide/test/lab"
)

// report is a list of tables.
type report struct{ text strings.Builder }

// row is one line of a table: what, how much, and the goal if there is one.
type row [3]string

func (r *report) table(title string, rows ...row) {
	var cells [][]string
	for _, row := range rows {
		cells = append(cells, row[:])
	}
	r.columns(title, []string{"", "measured", "goal"}, cells)
}

func (r *report) columns(title string, header []string, rows [][]string) {
	line := func(cells []string) { r.text.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	fmt.Fprintf(&r.text, "### %s\n\n", title)
	line(header)
	r.text.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for _, row := range rows {
		line(row)
	}
	r.text.WriteByte('\n')
}

func (r *report) String() string {
	return fmt.Sprintf("Measured on %s, %d cores of %s, which the load generator, the source, the control plane and Kubetide shared.\n\n%s",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), processor(), strings.TrimSuffix(r.text.String(), "\n"))
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

// usage is what the processes took during a load.
type usage struct {
	cluster *lab.Lab
	pod     *podAddress
	pid     int
	began   time.Time
	before  counters
	// profiled is closed when the profiles are written.
	profiled chan struct{}
}

// counters are what grows: processor time by program and of the whole machine, how long Kubetide's threads could have run but
// had no processor, and what it asked about callers.
type counters struct {
	programs map[string]time.Duration
	machine  time.Duration
	stolen   time.Duration
	waited   time.Duration
	asked    float64       // questions about callers
	answered time.Duration // how long they took
	garbage  float64       // bytes that Kubetide has asked for
	cycles   float64       // of its garbage collection
}

// measure begins to count, and takes profiles meanwhile if they are wanted.
func (w *workload) measure(ctx context.Context, load string) (*usage, error) {
	pod, err := kubetidePod(ctx, w.cluster)
	if err != nil {
		return nil, err
	}
	pid, err := w.cluster.PodPID("kubetide-system", pod.Name)
	if err != nil {
		return nil, err
	}
	u := &usage{cluster: w.cluster, pod: pod, pid: pid, profiled: make(chan struct{})}
	if u.before, err = u.count(ctx); err != nil {
		return nil, err
	}
	u.began = time.Now()
	go func() {
		defer close(u.profiled)
		if w.profiles == "" {
			return
		}
		for file, path := range map[string]string{"cpu": fmt.Sprintf("profile?seconds=%d", int(w.duration.Seconds())-2), "heap": "heap"} {
			if err := u.profile(ctx, filepath.Join(w.profiles, load+"."+file), path); err != nil {
				say("no profile: %v", err)
			}
		}
	}()
	return u, nil
}

func (u *usage) profile(ctx context.Context, file, path string) error {
	profile, err := u.admin(ctx, "/debug/pprof/"+path)
	if err != nil {
		return err
	}
	return os.WriteFile(file, profile, 0o644)
}

// admin reads from Kubetide's admin port.
func (u *usage) admin(ctx context.Context, path string) ([]byte, error) {
	return u.pod.admin(ctx, path)
}

func (p *podAddress) admin(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(p.IP, "8002")+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d", path, response.StatusCode)
	}
	return body, err
}

func (u *usage) count(ctx context.Context) (counters, error) {
	programs, err := u.cluster.CPU()
	if err != nil {
		return counters{}, err
	}
	metrics, err := u.admin(ctx, "/metrics")
	if err != nil {
		return counters{}, err
	}
	asked, seconds, garbage, cycles := 0.0, 0.0, 0.0, 0.0
	for line := range strings.Lines(string(metrics)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, _, _ = strings.Cut(name, "{")
		n, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "apiserver_delegated_authn_request_duration_seconds_count", "apiserver_delegated_authz_request_duration_seconds_count":
			asked += n
		case "apiserver_delegated_authn_request_duration_seconds_sum", "apiserver_delegated_authz_request_duration_seconds_sum":
			seconds += n
		case "go_memstats_alloc_bytes_total":
			garbage = n
		case "go_gc_duration_seconds_count":
			cycles = n
		}
	}
	machine, stolen, err := machineTime()
	if err != nil {
		return counters{}, err
	}
	waited, err := waitedTime(u.pid)
	return counters{programs, machine, stolen, waited, asked, time.Duration(seconds * float64(time.Second)), garbage, cycles}, err
}

// waitedTime is how long the process's threads have waited for a processor.
func waitedTime(pid int) (waited time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range threads {
		text, err := os.ReadFile(file) // running, waiting, and slices
		if fields := strings.Fields(string(text)); err == nil && len(fields) == 3 {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			waited += time.Duration(n)
		}
	}
	return waited, nil
}

// machineTime is the time that the machine's cores worked, all but idle and waiting for disks, and the time that they had work
// but its host gave them to others.
func machineTime() (worked, stolen time.Duration, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal ...
	if len(fields) < 9 {
		return 0, 0, fmt.Errorf("/proc/stat: unexpected line %q", line)
	}
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if took := time.Duration(n) * (time.Second / 100); i == 8 {
			stolen = took
		} else {
			worked += took
		}
	}
	return worked, stolen, nil
}

// rows are the processor use by program, in percent of one core, and Kubetide's memory. busy is the share of all processors
// that worked or were withheld.
func (u *usage) rows(ctx context.Context) (rows []row, busy float64, err error) {
	after, err := u.count(ctx)
	if err != nil {
		return nil, 0, err
	}
	took := time.Since(u.began)
	share := func(d time.Duration) string { return fmt.Sprintf("%.0f %% of a core", 100*d.Seconds()/took.Seconds()) }
	memory, err := memoryOf(u.pid)
	if err != nil {
		return nil, 0, err
	}
	rows = []row{
		{"processor, Kubetide", share(after.programs["kubetide"] - u.before.programs["kubetide"]), "≤ 100 % of a core"},
		{"memory of Kubetide", memory, "≤ 512 MiB"},
	}
	others := after.machine - u.before.machine - (after.programs["kubetide"] - u.before.programs["kubetide"])
	self, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	for _, part := range [][2]string{{"kube-apiserver", "kube-apiserver"}, {"etcd", "etcd"}, {filepath.Base(self), "the load generator and the source"}} {
		used := after.programs[part[0]] - u.before.programs[part[0]]
		others -= used
		rows = append(rows, row{"processor, " + part[1], share(used)})
	}
	<-u.profiled
	busy = (after.machine - u.before.machine + after.stolen - u.before.stolen).Seconds() / took.Seconds() / float64(runtime.NumCPU())
	cycle := "none"
	if n := after.cycles - u.before.cycles; n > 0 {
		cycle = "one each " + time.Duration(float64(took)/n).Round(100*time.Millisecond).String()
	}
	return append(rows,
		row{"memory that Kubetide asks for, and its garbage collections", fmt.Sprintf("%.1f MB a second, %s", (after.garbage-u.before.garbage)/1e6/took.Seconds(), cycle)},
		row{"Kubetide had work but no processor", fmt.Sprintf("%.0f %% of the time, all its threads added up", 100*(after.waited-u.before.waited).Seconds()/took.Seconds())},
		row{"processor, everything else on the machine", share(max(0, others))},
		row{"processors that the machine's host withheld", share(after.stolen - u.before.stolen)},
		row{"questions to the API server about callers", fmt.Sprintf("%.1f a second, %s each", (after.asked-u.before.asked)/took.Seconds(), mean(after.answered-u.before.answered, after.asked-u.before.asked))}), busy, nil
}

func memoryOf(pid int) (string, error) {
	resident, peak, err := mebibytesOf(pid)
	return fmt.Sprintf("%d MiB resident, %d MiB at its peak", resident, peak), err
}

func mebibytesOf(pid int) (resident, peak int, err error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, 0, err
	}
	mib := map[string]int{}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		mib[name] = kib >> 10
	}
	return mib["VmRSS"], mib["VmHWM"], nil
}

// percentiles prints sorted times.
func percentiles(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "none"
	}
	rounded := func(share float64) time.Duration {
		d := at(sorted, share)
		if d > time.Second {
			return d.Round(10 * time.Millisecond)
		}
		return d.Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %s, p99 %s, max %s", rounded(0.5), rounded(0.99), rounded(1))
}

// at is the sorted time that the share of all does not exceed.
func at(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(share*float64(len(sorted)-1))]
}

func mean(total time.Duration, count float64) time.Duration {
	return time.Duration(float64(total) / max(count, 1)).Round(100 * time.Microsecond)
}
