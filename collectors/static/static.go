// Package static serves a constant as an External metric, so that a plain HPA can follow a static portrait. It asks nobody.
package static

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the `type` label that asks for this source.
const Name = "static"

const keyValue = "value"

// Source serves External metrics with the setting `value`.
type Source struct{}

// Keys implements collectors.Source.
func (Source) Keys() []string { return []string{keyValue} }

// Parse implements collectors.Source.
func (Source) Parse(r collectors.Request) (sample.Query, error) {
	value, err := ParseValue(r.Settings, keyValue)
	if err != nil {
		return sample.Query{}, err
	}
	return r.Query(Name, sample.Settings{keyValue: value.String()}), nil
}

// Open implements collectors.Source.
func (Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	value, err := ParseValue(settings, keyValue)
	if err != nil {
		return nil, err
	}
	return constant(value.MilliValue()), nil
}

type constant int64

func (c constant) Collect(context.Context) ([]sample.Point, error) {
	return []sample.Point{{Milli: int64(c)}}, nil
}

var maxValue = resource.MustParse("9200000000000000")

// ParseValue reads a required setting that is a quantity of at least 0, such as "5" or "2500m".
func ParseValue(settings sample.Settings, key string) (resource.Quantity, error) {
	text, ok := settings[key]
	if !ok {
		return resource.Quantity{}, collectors.BadKey(key, "is missing")
	}
	if len(text) > 64 {
		return resource.Quantity{}, collectors.BadKey(key, "is longer than 64 characters")
	}
	value, err := sample.ParseQuantity(text)
	switch {
	case err != nil:
		return resource.Quantity{}, collectors.BadKey(key, "%q is not a number: %w", text, err)
	case value.Sign() < 0:
		return resource.Quantity{}, collectors.BadKey(key, "%q is negative", text)
	case value.Cmp(maxValue) > 0:
		return resource.Quantity{}, &collectors.KeyError{Key: key, Err: fmt.Errorf("%q: %w", text, sample.ErrNotFinite)}
	}
	return *resource.NewMilliQuantity(value.MilliValue(), resource.DecimalSI), nil
}
