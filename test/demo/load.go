package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// load shows an HPA that follows what its pods tell as JSON.
type load struct{}

// Orders a second, and the pods that the HPA needs for them at 10 a pod.
const (
	fewOrders  = 5
	manyOrders = 35
	manyPods   = 4
)

// settled is how long the HPA has to leave the pods alone while the load stays.
const settled = 10 * time.Second

func (*load) about() about {
	return about{
		name: "load", title: "an HPA on what its pods tell as JSON", bound: 3 * time.Minute,
		look:  "the orders a pod tells of, and how the pods follow them, up and down",
		after: []string{"-n", "load", "get", "hpa,pods"},
	}
}

func (*load) setUp(ctx context.Context, l *lab) error {
	if err := l.apply(ctx, "load", "load.yaml"); err != nil {
		return err
	}
	if err := l.waitReady(ctx, "load", "shop", 1); err != nil {
		return err
	}
	return l.hpaActive(ctx, "load")
}

func (c *load) run(ctx context.Context, l *lab, s *screen) (string, error) {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	var orders, taken atomic.Int64
	orders.Store(fewOrders)
	go pace(sending, func() int { return int(orders.Load()) }, 50, func(ctx context.Context) {
		if _, err := l.get(ctx, "/api/v1/namespaces/load/services/shop:http/proxy/order"); err == nil {
			taken.Add(1)
		}
	})
	s.say("1 pod gets %d orders/s", fewOrders)
	if err := spend(ctx, 3*time.Second); err != nil {
		return "", err
	}
	s.say("the load rises to %d orders/s; the HPA wants 10 a pod", manyOrders)
	orders.Store(manyOrders)
	up, err := c.reach(ctx, l, s, manyPods)
	if err != nil {
		return "", err
	}
	if err := c.stay(ctx, l, s, manyPods); err != nil {
		return "", err
	}
	s.say("the load falls to %d orders/s", fewOrders)
	orders.Store(fewOrders)
	down, err := c.reach(ctx, l, s, 1)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d → %d orders/s: 1 → %d ready pods in %s; back: → 1 in %s; %d orders taken",
		fewOrders, manyOrders, manyPods, seconds(up), seconds(down), taken.Load()), nil
}

// reach waits until there are just that many pods, all ready, and returns how long it took.
func (c *load) reach(ctx context.Context, l *lab, s *screen, want int) (time.Duration, error) {
	began := time.Now()
	var seen string
	err := until(ctx, 75*time.Second, func(ctx context.Context) error {
		hpa, err := l.scalingOf(ctx, "load")
		if err != nil {
			return err
		}
		ready, pods, err := l.readyPods(ctx, "load", "shop")
		if err != nil {
			return err
		}
		s.doing("orders: %s, ready: %d of %d", hpa, ready, pods)
		if now := fmt.Sprint(hpa.asked, ready); now != seen {
			seen = now
			s.say("orders: %s, ready: %d", hpa, ready)
		}
		if int(hpa.asked) != want || ready != want || pods != want {
			return fmt.Errorf("orders: %s, ready: %d of %d; want %d", hpa, ready, pods, want)
		}
		return nil
	})
	return time.Since(began), err
}

// stay watches that the HPA asks for no other number of pods while the load stays.
func (*load) stay(ctx context.Context, l *lab, s *screen, want int32) error {
	s.say("%d pods are ready; they have to be enough for %s", want, settled)
	for began := time.Now(); time.Since(began) < settled; {
		hpa, err := l.scalingOf(ctx, "load")
		if err != nil {
			return err
		}
		s.doing("orders: %s", hpa)
		if hpa.asked != want {
			return fmt.Errorf("under the same load: %s, want %d", hpa, want)
		}
		if err := spend(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	hpa, err := l.scalingOf(ctx, "load")
	s.say("orders: %s", hpa)
	return err
}

// pace calls do so many times a second, at most so many at once: what comes too fast is left out. It returns when the context has
// ended and all calls have.
func pace(ctx context.Context, perSecond func() int, atOnce int, do func(context.Context)) {
	running := make(chan struct{}, atOnce)
	next := time.Now()
	for {
		if next = next.Add(time.Second / time.Duration(perSecond())); time.Since(next) > time.Second {
			next = time.Now()
		}
		if spend(ctx, time.Until(next)) != nil {
			break
		}
		select {
		case running <- struct{}{}:
			go func() {
				defer func() { <-running }()
				do(ctx)
			}()
		default:
		}
	}
	for range atOnce {
		running <- struct{}{}
	}
}
