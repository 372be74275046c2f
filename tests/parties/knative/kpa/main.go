// Command kpa prints what Knative's autoscaler decides for what it sees: golden files for the hints and for simulations.
//
// Standard input is one JSON object: the settings of a revision, and a row for each decision. Knative decides every two
// seconds. Standard output has a line for each row.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"

	"knative.dev/serving/pkg/autoscaler/scaling"
)

// The settings, with the names of Knative's annotations and of its ConfigMap config-autoscaler.
type settings struct {
	// Metric is "rps" or "concurrency".
	Metric string `json:"metric"`
	// Target is what one replica should have: the annotation's target times its utilization.
	Target float64 `json:"target"`
	// Total is what one replica can have: the annotation's target.
	Total               float64 `json:"total"`
	TargetBurstCapacity float64 `json:"target-burst-capacity"`
	MaxScaleUpRate      float64 `json:"max-scale-up-rate"`
	MaxScaleDownRate    float64 `json:"max-scale-down-rate"`
	// PanicThreshold is a factor: the annotation's percentage by a hundred.
	PanicThreshold float64 `json:"panic-threshold"`
	StableWindow   int     `json:"stable-window-seconds"`
	ScaleDownDelay int     `json:"scale-down-delay-seconds"`
	InitialScale   int32   `json:"initial-scale"`
}

type row struct {
	// Second is the time of the decision.
	Second int `json:"second"`
	// Stable and Panic are the averages over the stable and over the panic window, summed over all replicas.
	Stable float64 `json:"stable"`
	Panic  float64 `json:"panic"`
	// Ready is the number of replicas that are ready.
	Ready int `json:"ready"`
}

// seen is what the autoscaler asks of its metrics and of Kubernetes.
type seen struct{ row }

func (s *seen) StableAndPanicConcurrency(types.NamespacedName, time.Time) (float64, float64, error) {
	return s.Stable, s.Panic, nil
}

func (s *seen) StableAndPanicRPS(types.NamespacedName, time.Time) (float64, float64, error) {
	return s.Stable, s.Panic, nil
}

func (s *seen) ReadyCount() (int, error)    { return s.Ready, nil }
func (s *seen) NotReadyCount() (int, error) { return 0, nil }

func main() {
	var input struct {
		Settings settings `json:"settings"`
		Rows     []row    `json:"rows"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s := input.Settings
	spec := &scaling.DeciderSpec{
		ScalingMetric:       s.Metric,
		TargetValue:         s.Target,
		TotalValue:          s.Total,
		TargetBurstCapacity: s.TargetBurstCapacity,
		MaxScaleUpRate:      s.MaxScaleUpRate,
		MaxScaleDownRate:    s.MaxScaleDownRate,
		PanicThreshold:      s.PanicThreshold,
		StableWindow:        time.Duration(s.StableWindow) * time.Second,
		ScaleDownDelay:      time.Duration(s.ScaleDownDelay) * time.Second,
		InitialScale:        s.InitialScale,
		Reachable:           true,
	}
	view := &seen{}
	autoscaler := scaling.New(context.Background(), "ns", "rev", view, view, spec)
	start := time.Unix(0, 0)
	for _, r := range input.Rows {
		view.row = r
		result := autoscaler.Scale(zap.NewNop().Sugar(), start.Add(time.Duration(r.Second)*time.Second))
		fmt.Printf("%d %d %d\n", r.Second, result.DesiredPodCount, result.ExcessBurstCapacity)
	}
}
