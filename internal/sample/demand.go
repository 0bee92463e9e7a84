package sample

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Asked is one metric of an object of the engine: its query, or why there is none.
type Asked struct {
	Query Query
	Err   error
	// Warnings name settings of the metric that have no effect.
	Warnings []string
}

// Demand collects what the engine asks for, and gives the answers.
type Demand interface {
	Reader
	// Queries reads metrics with the settings in the object's metric-config annotations, in the order of metrics.
	Queries(o metav1.Object, target autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []Asked
	// Want collects a query until release is called.
	Want(q Query) (release func())
}
