// Package workloads is the room for controllers that turn an application's own description (a Step, a StackSet) into
// Deployments, Services and autoscalers. They may use the engine (scaler) and what stands below it, never the adapter.
package workloads
