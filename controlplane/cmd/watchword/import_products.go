package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/watchword-mesh/watchword/controlplane/importer"
)

func newImportIstioCommand(o *options) *cobra.Command {
	var workloads []string
	var settled importer.Options
	cmd := &cobra.Command{
		Use:   "istio FILE|-...",
		Short: "Import RequestAuthentications and AuthorizationPolicies",
		Long: `Imports the RequestAuthentications and AuthorizationPolicies of one namespace and
of the root namespace. All files are read together, since in Istio all policies
that select a workload count together.`,
		Example: `  kubectl get requestauthentication,authorizationpolicy -n shop -o yaml | watchword import istio -
  watchword import istio --service orders=app=orders,tier=back policies.yaml`,
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&workloads, "service", nil, "`NAME=KEY=VALUE,...`: the Service and the labels of its workloads; may be repeated (default: the label app or app.kubernetes.io/name is the name)")
	flags.StringVar(&settled.Namespace, "namespace", "", "the namespace to import (default: the first in the files)")
	flags.StringVar(&settled.RootNamespace, "root-namespace", "istio-system", "the namespace whose policies hold in all")
	flags.StringArrayVar(&settled.AllowNetworks, "allow-network", nil, "`CIDR` that key sets may be fetched from though it is not public; may be repeated")
	return importCommand(o, cmd, importer.Istio, func(i *importer.Options) error {
		i.Namespace, i.RootNamespace, i.AllowNetworks = settled.Namespace, settled.RootNamespace, settled.AllowNetworks
		for _, w := range workloads {
			workload, err := parseWorkload(w)
			if err != nil {
				return usageError{err}
			}
			i.Workloads = append(i.Workloads, workload)
		}
		return nil
	})
}

// parseWorkload reads NAME=KEY=VALUE,...
func parseWorkload(s string) (importer.Workload, error) {
	name, labels, _ := strings.Cut(s, "=")
	w := importer.Workload{Service: name, Labels: map[string]string{}}
	for pair := range strings.SplitSeq(labels, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if name == "" || key == "" || !ok {
			return w, fmt.Errorf("--service %q is not NAME=KEY=VALUE,... such as orders=app=orders", s)
		}
		w.Labels[key] = value
	}
	return w, nil
}

func newImportHigressCommand(o *options) *cobra.Command {
	var gateway, routes string
	cmd := &cobra.Command{
		Use:   "higress FILE|-",
		Short: "Import the plugin jwt-auth",
		Long: `Imports the configuration of jwt-auth: the gateway's, with the rules of routes
and domains under _rules_, or the WasmPlugin that holds both.

What a route of the gateway matches does not stand in the plugin's configuration.
Describe the routes that rules name in a file of their own:

  route-a:
    hosts: [shop.example.com]
    paths: [/orders, /orders/*]
    methods: [GET]`,
		Example: `  watchword import higress --routes routes.yaml jwt-auth.yaml`,
	}
	cmd.Flags().StringVar(&gateway, "service", "gateway", "`NAME` of the Service that stands for the gateway")
	cmd.Flags().StringVar(&routes, "routes", "", "`FILE` that says what the gateway's routes match")
	must(cmd.MarkFlagFilename("routes", "yaml", "yml", "json"))
	return importCommand(o, cmd, importer.Higress, func(i *importer.Options) error {
		i.Gateway = gateway
		if routes == "" {
			return nil
		}
		f, err := readImport(strings.NewReader(""), routes)
		i.Routes = &f
		return err
	})
}

func newImportKongCommand(o *options) *cobra.Command {
	return importCommand(o, &cobra.Command{
		Use:   "kong FILE|-...",
		Short: "Import the plugin jwt of a declarative configuration",
		Long: `Imports services, routes, consumers, their jwt_secrets and the plugin jwt of a
declarative configuration (_format_version "1.1", "2.1" or "3.0"), as ` + "`deck gateway\ndump`" + ` and ` + "`kong config db_export`" + ` write it.`,
		Example: `  watchword import kong kong.yaml > mesh.yaml`,
	}, importer.Kong, nil)
}

func newImportFCCommand(o *options) *cobra.Command {
	return importCommand(o, &cobra.Command{
		Use:     "fc FILE|-...",
		Short:   "Import the JWT authentication of a custom domain of Function Compute",
		Long:    `Imports custom domains as Function Compute's API returns them (GetCustomDomain).`,
		Example: `  aliyun fc GET /2023-03-30/custom-domains/api.example.com | watchword import fc -`,
	}, importer.FunctionCompute, nil)
}
