package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// customersCommand is how the demo starts itself inside the lab, to send requests from there: customers URL HOST RATE.
const customersCommand = "customers"

func customersMain(ctx context.Context, args []string) int {
	if len(args) != 3 {
		return exitUsage
	}
	perSecond, err := strconv.Atoi(args[2])
	if err != nil || perSecond < 1 {
		return exitUsage
	}
	send(ctx, os.Stdout, args[0], args[1], perSecond)
	return 0
}

// send asks for the URL under the host name so many times a second, evenly, from the first time on that it is answered, until the
// context ends. It prints counts as they grow, and the last ones when all requests are answered. An answer's body names who it is from.
func send(ctx context.Context, out io.Writer, url, host string, perSecond int) {
	const atOnce = 50
	transport := &http.Transport{MaxIdleConnsPerHost: atOnce}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	ask := func() (by string, err error) {
		// Not the caller's context: what was sent is waited for.
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		request.Host = host
		response, err := client.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, body)
		}
		return string(body), err
	}
	for { // the router may not know of the host yet
		if _, err := ask(); err == nil {
			break
		}
		if spend(ctx, 100*time.Millisecond) != nil {
			return
		}
	}

	var mu sync.Mutex
	now := counts{By: map[string]int{}}
	lines := json.NewEncoder(out)
	report := func() {
		mu.Lock()
		defer mu.Unlock()
		_ = lines.Encode(now)
	}
	reporting, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for spend(reporting, 250*time.Millisecond) == nil {
			report()
		}
	}()
	pace(ctx, func() int { return perSecond }, atOnce, func(context.Context) {
		by, err := ask()
		mu.Lock()
		defer mu.Unlock()
		now.Sent++
		switch {
		case err == nil:
			now.By[by]++
		case now.Lost == 0:
			now.Error = err.Error()
			fallthrough
		default:
			now.Lost++
		}
	})
	report()
}
