"""Speed: updates, acting, densities and start-up beside other libraries, how costs grow, what accuracy costs."""
