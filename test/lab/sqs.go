package lab

import (
	"context"
	"net/http"
)

// SQS is a running SQS server. It takes any credentials and any region; a queue's name must not be used in two regions.
type SQS struct {
	Part
	// URL is the endpoint, at an address that pods reach; queue URLs begin with it.
	URL string
}

// StartSQS starts an SQS server without queues and returns when it answers.
func (l *Lab) StartSQS(ctx context.Context) (*SQS, error) {
	name, binary, address, err := l.newPart(ctx, "sqs")
	if err != nil {
		return nil, err
	}
	const port = "4566"
	s := &SQS{URL: "http://" + address + ":" + port}
	if s.component, err = l.launch(name, binary, nil, address, port); err != nil {
		return nil, err
	}
	if err := s.component.await(ctx, "it is healthy", get(http.DefaultClient, s.URL+"/health")); err != nil {
		s.Stop()
		return nil, err
	}
	l.say("%s answers at %s", name, s.URL)
	return s, nil
}
