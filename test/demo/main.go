// Command demo is `make demo`: it starts a lab, installs Kubetide from deploy/ with the rights that it ships with, and tells a story
// of five chapters. Each shows one thing as it happens, and checks what it claims. The binaries that it starts are in bin/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var code int
	if len(os.Args) > 1 && os.Args[1] == customersCommand { // the demo has started itself inside the lab
		code = customersMain(ctx, os.Args[2:])
	} else {
		code = run(ctx, story(), os.Args[1:], os.Stdout, os.Stderr)
	}
	stop()
	os.Exit(code)
}

// The exit codes, besides 0.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// options are what the command line says.
type options struct {
	name     string
	keep     bool
	list     bool
	chapters []chapter
}

// parse reads the command line. What is wrong with it, and help, is told to stderr.
func parse(all []chapter, args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.name, "name", "demo", "the lab's name; one of that name is ended first")
	flags.BoolVar(&o.keep, "keep", true, "leave the lab up at the end")
	flags.BoolVar(&o.list, "list", false, "print the names of the chapters that would be shown, and show none")
	flags.Usage = func() {
		fmt.Fprint(stderr, "Shows Kubetide at work on a real control plane on this machine. Run it in the repository's folder.\n\n"+
			"  bin/demo [flags] [CHAPTER...]\n\nChapters, all of them if none is named:\n\n")
		for _, c := range all {
			fmt.Fprintf(stderr, "  %-10s %s\n", c.about().name, c.about().title)
		}
		fmt.Fprint(stderr, "\nFlags:\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.chapters, err = choose(all, flags.Args()); err != nil {
		fmt.Fprintln(stderr, "demo: "+err.Error())
	}
	return o, err
}

// run is the whole program; it returns the exit code.
func run(ctx context.Context, all []chapter, args []string, stdout, stderr *os.File) int {
	o, err := parse(all, args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage
	case o.list:
		for _, c := range o.chapters {
			fmt.Fprintln(stdout, c.about().name)
		}
		return 0
	}
	s := newScreen(stdout)
	defer s.close()
	l := newLab(o.name)
	telling, end := context.WithCancel(ctx)
	failed, err := show(telling, l, s, o)
	s.doing("")
	end()
	l.children.Wait()
	interrupted := ctx.Err() != nil
	if l.up && !o.keep {
		l.down()
	}
	switch {
	case interrupted:
		message := "\ndemo: interrupted"
		if l.up && o.keep {
			message += "; end the lab with: make lab-down NAME=" + o.name
		}
		fmt.Fprintln(stderr, message)
		return exitInterrupted
	case err != nil:
		fmt.Fprintln(stderr, "demo: "+err.Error())
		return exitFailed
	case failed:
		return exitFailed
	}
	return 0
}

// show starts the lab and tells the chapters. It tells whether one of them failed; the error is of what all of them need.
func show(ctx context.Context, l *lab, s *screen, o options) (failed bool, err error) {
	if err := l.start(ctx, s, needs(o.chapters)); err != nil {
		return false, err
	}
	if err := l.install(ctx, s); err != nil {
		return false, err
	}
	results := tell(ctx, l, s, o.chapters)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	s.print("\n" + summary(results))
	if o.keep {
		s.print(lookAround(l.kubeconfig, o.name, o.chapters))
	}
	for _, r := range results {
		failed = failed || r.err != nil
	}
	return failed, nil
}

// lookAround says what somebody may do with the lab that stays up.
func lookAround(kubeconfig, name string, chapters []chapter) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe lab stays up. Each chapter has a namespace of its name. Look around with\n\n    export KUBECONFIG=%s\n", kubeconfig)
	for _, c := range chapters {
		fmt.Fprintf(&b, "    kubectl %s\n", strings.Join(c.about().after, " "))
	}
	fmt.Fprintf(&b, "\n(no kubectl? bin/lab exec --name %[1]s -- kubectl ...), and end it with\n\n    make lab-down NAME=%[1]s\n", name)
	return b.String()
}
