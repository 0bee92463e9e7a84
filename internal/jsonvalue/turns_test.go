package jsonvalue

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestANamespaceThatWaitsLeavesTheOthersTheirTurn(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	turns := newTurns(2)
	greedy, err := turns.take(ctx, "greedy")
	if err != nil {
		t.Fatal(err)
	}
	queue, withdraw := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() {
			if _, err := turns.take(queue, "greedy"); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want to wait until the context ends", err)
			}
		})
	}
	for users := 0; users < 21; {
		turns.mu.Lock()
		users = turns.lanes["greedy"].users
		turns.mu.Unlock()
	}
	modest, err := turns.take(ctx, "modest")
	if err != nil {
		t.Fatalf("a namespace that has no turn yet: %v", err)
	}
	late, stop := context.WithTimeout(ctx, time.Millisecond)
	defer stop()
	if _, err := turns.take(late, "late"); err == nil {
		t.Error("there were more turns than places")
	}
	withdraw()
	waiting.Wait()
	greedy()
	modest()
	if again, err := turns.take(ctx, "greedy"); err != nil {
		t.Error(err)
	} else {
		again()
	}
	if len(turns.lanes) != 0 {
		t.Errorf("%d namespaces are kept", len(turns.lanes))
	}
}
