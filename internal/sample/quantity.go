package sample

import (
	"errors"
	"regexp"

	"k8s.io/apimachinery/pkg/api/resource"
)

var quantityForm = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$`)

// ParseQuantity reads a quantity that a tenant wrote. Kubernetes' own parser takes any exponent, and then works for minutes on
// 1e99999999.
func ParseQuantity(text string) (resource.Quantity, error) {
	if len(text) > 64 || !quantityForm.MatchString(text) {
		return resource.Quantity{}, errors.New("write up to 64 characters such as 50, 0.5, 500m, 2k or 1e3")
	}
	return resource.ParseQuantity(text)
}
