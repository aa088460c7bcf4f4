"""The main job without hardware, root or Kubernetes: a simulated host, a kubelet, and the demo."""
