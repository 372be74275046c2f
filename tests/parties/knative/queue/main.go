// Command queue is Knative's queue-proxy, as Knative builds it.
package main

import (
	"os"

	"knative.dev/serving/pkg/queue/sharedmain"
)

func main() {
	if err := sharedmain.Main(); err != nil {
		os.Exit(1)
	}
}
