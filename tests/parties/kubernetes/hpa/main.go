// Command hpa prints how many replicas the calculator of Kubernetes' HPA wants for what it sees: golden files for the
// hints and for simulations. What comes after it, the stabilization window and the policies, is not part of it.
//
// Standard input is one JSON object: the target, the tolerance, and a row for each decision. Standard output has a line
// for each row: the replicas that a metric of pods leads to, and those that the same sum as an external metric leads to.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	autoscaling "k8s.io/api/autoscaling/v2"
	"k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

type input struct {
	// Target is the average value for a pod.
	Target float64 `json:"target"`
	// Tolerance is a fraction of the target within which nothing changes.
	Tolerance float64 `json:"tolerance"`
	Rows      []row   `json:"rows"`
}

type row struct {
	// Replicas is the number that the Deployment has now.
	Replicas int32 `json:"replicas"`
	// Demands are those of the pods that run; null for one without a value.
	Demands []*float64 `json:"demands"`
	// Pending is the number of pods that do not run yet.
	Pending int `json:"pending"`
}

// seen answers for the metrics API.
type seen struct{ row }

func (s *seen) GetResourceMetric(context.Context, v1.ResourceName, string, labels.Selector, string) (metrics.PodMetricsInfo, time.Time, error) {
	return nil, time.Time{}, errors.New("there are no metrics of resources")
}

func (s *seen) GetObjectMetric(string, string, *autoscaling.CrossVersionObjectReference, labels.Selector) (int64, time.Time, error) {
	return 0, time.Time{}, errors.New("there are no metrics of objects")
}

func (s *seen) GetRawMetric(string, string, labels.Selector, labels.Selector) (metrics.PodMetricsInfo, time.Time, error) {
	found := metrics.PodMetricsInfo{}
	for index, demand := range s.Demands {
		if demand != nil {
			found[name(index)] = metrics.PodMetric{Value: milli(*demand)}
		}
	}
	return found, time.Time{}, nil
}

func (s *seen) GetExternalMetric(string, string, labels.Selector) ([]int64, time.Time, error) {
	var sum float64
	for _, demand := range s.Demands {
		if demand != nil {
			sum += *demand
		}
	}
	return []int64{milli(sum)}, time.Time{}, nil
}

func milli(value float64) int64 { return int64(value*1000 + 0.5) }

func name(index int) string { return fmt.Sprintf("pod-%d", index) }

// pods lists the pods of a row.
func pods(r row) corelisters.PodLister {
	found := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for index := range len(r.Demands) + r.Pending {
		phase := v1.PodRunning
		if index >= len(r.Demands) {
			phase = v1.PodPending
		}
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name(index), Namespace: "ns"}, Status: v1.PodStatus{Phase: phase}}
		if err := found.Add(pod); err != nil {
			panic(err)
		}
	}
	return corelisters.NewPodLister(found)
}

// tolerances makes the type whose two fields, down and up, only the controller itself can set.
func tolerances(value float64) podautoscaler.Tolerances {
	var made podautoscaler.Tolerances
	fields := (*[2]float64)(unsafe.Pointer(&made))
	if unsafe.Sizeof(made) != unsafe.Sizeof(*fields) {
		panic("Tolerances has other fields than before")
	}
	*fields = [2]float64{value, value}
	return made
}

func main() {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	tolerated, all := tolerances(in.Tolerance), labels.Everything()
	for _, r := range in.Rows {
		calculator := podautoscaler.NewReplicaCalculator(&seen{r}, pods(r), 5*time.Minute, 30*time.Second)
		fmt.Println(
			show(calculator.GetMetricReplicas(r.Replicas, milli(in.Target), "demand", tolerated, "ns", all, all)),
			show(calculator.GetExternalPerPodMetricReplicas(r.Replicas, milli(in.Target), "demand", tolerated, "ns", &metav1.LabelSelector{})),
		)
	}
}

// show is the number, or the word "error" where the calculator has none.
func show(replicas int32, _ int64, _ time.Time, err error) string {
	if err != nil {
		return "error"
	}
	return fmt.Sprint(replicas)
}
