"""The main job without hardware, root or Kubernetes: a host, a kubelet, and the story they tell."""
