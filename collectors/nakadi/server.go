package nakadi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/kubetide/kubetide/internal/outbound"
)

const (
	// tries is how often one request is made at most.
	tries = 3
	// The first pause before another try; the next one is twice as long. Nakadi itself may ask for a longer one.
	firstPause = 100 * time.Millisecond
	maxPause   = 30 * time.Second

	maxPages         = 20
	maxSubscriptions = 100
)

// server asks Nakadi on behalf of a namespace.
type server struct {
	source    *Source
	namespace string
}

// subscriptions returns the IDs of those that match.
func (s server) subscriptions(ctx context.Context, q question) ([]string, error) {
	u := *s.source.endpoint
	u.Path += "/subscriptions"
	u.RawQuery = url.Values{"owning_application": {q.application}, "consumer_group": {q.consumerGroup}, "event_type": q.eventTypes}.Encode()
	var ids []string
	for range maxPages {
		var page struct {
			Items []struct {
				ID            string
				ConsumerGroup string `json:"consumer_group"`
			}
			Links struct {
				Next struct{ Href string }
			} `json:"_links"`
		}
		if err := s.get(ctx, &u, &page); err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			if !identifier.MatchString(item.ID) {
				return nil, errForeign
			}
			// Servers that do not know this parameter leave it out of account.
			if cmp.Or(item.ConsumerGroup, q.consumerGroup) == q.consumerGroup {
				ids = append(ids, item.ID)
			}
		}
		if len(ids) > maxSubscriptions {
			return nil, fmt.Errorf("more than %d subscriptions match", maxSubscriptions)
		}
		if page.Links.Next.Href == "" {
			slices.Sort(ids) // one that was made meanwhile moves another to the next page, where it is seen again
			return slices.Compact(ids), nil
		}
		next, err := u.Parse(page.Links.Next.Href)
		if err != nil || next.Host != u.Host || next.Scheme != u.Scheme || next.User != nil {
			return nil, errors.New("the next page of subscriptions is on another host")
		}
		u = *next
	}
	return nil, fmt.Errorf("the subscriptions have more than %d pages", maxPages)
}

type eventType struct {
	Partitions []struct {
		// Both are absent as long as nothing was consumed.
		UnconsumedEvents   *float64 `json:"unconsumed_events"`
		ConsumerLagSeconds *float64 `json:"consumer_lag_seconds"`
	}
}

// stats returns what there is about each event type of the subscription.
func (s server) stats(ctx context.Context, id string) ([]eventType, error) {
	u := *s.source.endpoint
	u.Path += "/subscriptions/" + id + "/stats"
	u.RawQuery = "show_time_lag=true"
	var page struct{ Items []eventType }
	err := s.get(ctx, &u, &page)
	return page.Items, err
}

var errForeign = errors.New("the answer is not that of Nakadi")

// get tries until there is an answer, a refusal, or no time left for another try.
func (s server) get(ctx context.Context, u *url.URL, to any) error {
	pause := firstPause
	for try := 1; ; try++ {
		again, err := s.once(ctx, u, to)
		if err == nil || again < 0 || try == tries {
			return err
		}
		wait := max(pause, again)
		clock := s.source.config.Clock
		if deadline, ok := ctx.Deadline(); wait > maxPause || ok && deadline.Sub(clock.Now()) <= wait {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-clock.After(wait):
		}
		pause *= 2
	}
}

// once makes one request. After an error, again is how long Nakadi wants to be left alone; below zero: another try is in vain.
func (s server) once(ctx context.Context, u *url.URL, to any) (again time.Duration, err error) {
	o := s.source.config
	credentials, err := o.Token.For(u.Host)
	if err != nil {
		return -1, err
	}
	response, err := o.Client.Do(ctx, outbound.Request{Namespace: s.namespace, Collector: Name, URL: u, Credentials: credentials})
	if err != nil {
		switch outbound.Kind(err) {
		case "resolve", "connect", "timeout", "broken":
			return 0, err
		}
		return -1, err
	}
	switch status := response.Status; {
	case status == http.StatusOK:
		if json.Unmarshal(response.Body, to) != nil {
			return -1, errForeign
		}
		return 0, nil
	case status == http.StatusTooManyRequests:
		again = retryAfter(response.Header.Get("Retry-After"), o.Clock.Now())
	case status < 500:
		again = -1
	}
	err = &outbound.StatusError{Status: response.Status}
	var problem struct{ Title, Detail string }
	if json.Unmarshal(response.Body, &problem) == nil && problem.Title+problem.Detail != "" {
		err = fmt.Errorf("%w: %.300q", err, cmp.Or(problem.Detail, problem.Title))
	}
	return again, err
}

// retryAfter reads a number of seconds or a time; 0 for neither.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
